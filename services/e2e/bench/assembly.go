package bench

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// assembly is a set of users with one client each. Each user is a member of several groups.
type assembly struct {
	*crowd

	groups []string // conversation ids
}

// assemble makes the clients of users who are not members of any group yet. No client is connected.
func assemble(s *system, users int) (*assembly, error) {
	s.crowds++
	a := &assembly{crowd: &crowd{system: s, clients: make([]*load.Client, users)}}
	for i := range users {
		user := fmt.Sprintf("c%d-u%d", s.crowds, i)
		token, err := s.Token(user)
		if err != nil {
			return nil, err
		}
		a.clients[i] = load.NewMember(user, token)
		a.clients[i].Index = i
	}
	var err error
	a.loop, err = load.NewLoop(&listener{})
	return a, err
}

// member returns the client of member i of group g. size is the number of members. The groups are spread evenly over the
// users. No two groups have the same members.
func (a *assembly) member(g, i, size int) *load.Client {
	users := len(a.clients)
	return a.clients[(g+i*(users/size+1+g/users))%users]
}

// create makes groups, atOnce at a time. It returns when all groups are committed.
func (a *assembly) create(ctx context.Context, groups, size, atOnce int) error {
	first := len(a.groups)
	a.groups = append(a.groups, make([]string, groups)...)
	making, group := errgroup.WithContext(ctx)
	making.SetLimit(atOnce)
	for g := first; g < first+groups; g++ {
		making.Go(func() error {
			users := make([]string, size)
			for i := range users {
				users[i] = a.member(g, i, size).User
			}
			var err error
			a.groups[g], _, err = a.system.createGroup(group, g, users)
			return err
		})
	}
	return making.Wait()
}

// say sends one message to each group. A slow server lowers the rate. say returns when every member has received every
// message.
func (a *assembly) say(ctx context.Context, size, rate int) error {
	var delivered atomic.Int64
	all := make(chan struct{})
	want := int64(len(a.groups) * size)
	a.loop.Handle(&listener{
		event: func(_ *load.Client, _ uint64, event []byte, _ int64) {
			if load.SentAt(event) > 0 && delivered.Add(1) == want {
				close(all)
			}
		},
		outcome: func(*load.Client, int64, uint64, int64) { a.answers.Add(1) },
	})
	sending, stop := context.WithCancel(ctx)
	defer stop()
	_, err := load.Pace(sending, rate, func(g int) error {
		if g == len(a.groups)-1 {
			stop()
		}
		a.ease(ctx)
		a.sends.Add(1)
		return a.member(g, 0, size).SubmitTo(a.groups[g], load.Now())
	})
	if err != nil {
		return err
	}
	return a.await(ctx, all, func() string { return fmt.Sprintf("%d of %d messages were delivered", delivered.Load(), want) })
}

// await waits for a limited time until done is closed.
func (a *assembly) await(ctx context.Context, done <-chan struct{}, state func() string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	select {
	case <-done:
		return a.loop.Failures()
	case <-ctx.Done():
		if err := a.loop.Failures(); err != nil {
			return err // the loop's error explains why done was not closed
		}
		return fmt.Errorf("%s: %w", state(), ctx.Err())
	}
}
