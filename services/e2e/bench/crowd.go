package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// crowd is a set of users in groups of one size. Each user has one client.
type crowd struct {
	system  *system
	loop    *load.Loop
	size    int
	clients []*load.Client // the clients of a group are adjacent
	heads   []atomic.Uint64
	sends   atomic.Int64
	answers atomic.Int64
}

// settleTime is how long the last events of a load may take to reach all clients. After it they count as missing.
const settleTime = 30 * time.Second

// gather makes users and their groups. It does not connect the clients.
func gather(ctx context.Context, s *system, groups, size int, receipts bool) (_ *crowd, err error) {
	s.crowds++
	c := &crowd{system: s, size: size, clients: make([]*load.Client, groups*size), heads: make([]atomic.Uint64, groups)}
	making, group := errgroup.WithContext(ctx)
	making.SetLimit(64)
	for g := range groups {
		making.Go(func() error {
			users := make([]string, size)
			for i := range users {
				users[i] = fmt.Sprintf("c%d-u%d", s.crowds, g*size+i)
			}
			conversation, seq, err := s.createGroup(group, g, users)
			if err != nil {
				return err
			}
			c.heads[g].Store(seq)
			for i, user := range users {
				token, err := s.Token(user)
				if err != nil {
					return err
				}
				client := load.NewClient(user, token, conversation, receipts)
				client.Index = g*size + i
				c.clients[client.Index] = client
			}
			return nil
		})
	}
	if err := making.Wait(); err != nil {
		return nil, err
	}
	c.loop, err = load.NewLoop(&listener{})
	return c, err
}

// turn returns the client that sends message i. The groups take turns, and within a group the members take turns.
func (c *crowd) turn(i int) *load.Client {
	groups := len(c.clients) / c.size
	return c.clients[i%groups*c.size+i/groups%c.size]
}

// close disconnects all clients.
func (c *crowd) close() { c.loop.Close() }

// listener passes events of the loop to functions. A nil function ignores its events, except that a lost connection then
// counts as a failure.
type listener struct {
	event     func(c *load.Client, seq uint64, event []byte, now int64)
	outcome   func(c *load.Client, sent int64, seq uint64, now int64)
	connected func(c *load.Client, now int64)
	closed    func(c *load.Client, reason string, now int64) error
}

func (l *listener) Event(c *load.Client, seq uint64, event []byte, now int64) {
	if l.event != nil {
		l.event(c, seq, event, now)
	}
}

func (l *listener) Outcome(c *load.Client, sent int64, seq uint64, now int64) {
	if l.outcome != nil {
		l.outcome(c, sent, seq, now)
	}
}

func (l *listener) Connected(c *load.Client, now int64) {
	if l.connected != nil {
		l.connected(c, now)
	}
}

func (l *listener) Closed(c *load.Client, reason string, now int64) error {
	if l.closed != nil {
		return l.closed(c, reason, now)
	}
	return fmt.Errorf("the connection was lost: %s", reason)
}

// atOnce is the number of clients that connect at the same time.
const atOnce = 256

// connect connects all clients, distributed over the gateways, and waits until all are authenticated.
func (c *crowd) connect(ctx context.Context) error {
	clients := c.clients
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	done := make(chan struct{}, len(clients))
	c.loop.Handle(&listener{connected: func(*load.Client, int64) { done <- struct{}{} }})
	begun, finished := 0, 0
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for finished < len(clients) {
		for begun < len(clients) && begun-finished < atOnce {
			c.loop.Connect(clients[begun], c.system.gateways[clients[begun].Index%len(c.system.gateways)])
			begun++
		}
		select {
		case <-done:
			finished++
		case <-tick.C:
			if err := c.loop.Failures(); err != nil {
				return fmt.Errorf("connect: %w", err)
			}
		case <-ctx.Done():
			return fmt.Errorf("connect: %d of %d are connected: %w", finished, len(clients), ctx.Err())
		}
	}
	return nil
}

// send sends a message as a client.
func (c *crowd) send(client *load.Client) error {
	err := client.Submit(load.Now())
	if err == nil {
		c.sends.Add(1)
	}
	return err
}

// mostInFlight limits the messages without an outcome, for a load that has a fixed number of messages instead of a fixed
// rate.
const mostInFlight = 2000

// ease waits while too many messages are without an outcome.
func (c *crowd) ease(ctx context.Context) {
	for c.sends.Load()-c.answers.Load() >= mostInFlight && c.loop.Failures() == nil {
		if launch.Sleep(ctx, time.Millisecond) != nil {
			return
		}
	}
}

// committed records the outcome of a client's message.
func (c *crowd) committed(client *load.Client, seq uint64) {
	c.answers.Add(1)
	if head := &c.heads[client.Index/c.size]; seq > head.Load() {
		head.Store(seq) // while a load runs, only the loop stores
	}
}

// settle waits until every send has its outcome and every client has all committed events of its group. It returns an
// error if anything was wrong.
func (c *crowd) settle(ctx context.Context) error {
	if lost := c.unanswered(ctx, settleTime); lost > 0 {
		return errors.Join(fmt.Errorf("%d sends got no outcome", lost), c.loop.Failures())
	}
	return c.wholeness(ctx)
}

// unanswered waits for a limited time for the outcomes of all sends, and returns how many are still missing.
func (c *crowd) unanswered(ctx context.Context, patience time.Duration) int64 {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		lost := max(0, c.sends.Load()-c.answers.Load())
		if lost == 0 || c.loop.Failures() != nil || launch.Sleep(ctx, 10*time.Millisecond) != nil {
			return lost
		}
	}
}

// wholeness waits until every client has all committed events of its group.
func (c *crowd) wholeness(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		var missing error
		c.loop.Do(func() {
			for _, client := range c.clients {
				if head := c.heads[client.Index/c.size].Load(); client.Seq() < head {
					missing = fmt.Errorf("%s has events up to %d of %d", client.User, client.Seq(), head)
					return
				}
			}
		})
		if err := c.loop.Failures(); err != nil || missing == nil {
			return err
		}
		if err := launch.Sleep(ctx, 10*time.Millisecond); err != nil {
			return errors.Join(missing, err)
		}
	}
}
