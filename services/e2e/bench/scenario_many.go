package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// idleGroups measures the memory of groups without traffic, with a fixed number of connections. The first figure is the
// difference between freshly started services with and without the groups. The second figure is the difference after one
// message in each group. The third figure is measured once, while the groups are created and their connected members
// receive the first events.
func idleGroups(ctx context.Context, t *trial) error {
	members, err := assemble(t.system, t.many.users)
	if err != nil {
		return err
	}
	defer members.close()
	if err := t.memoryOfNew(ctx, members); err != nil {
		return err
	}
	for run := range t.Runs {
		loners, err := assemble(t.system, t.many.users)
		if err != nil {
			return err
		}
		without, err := t.memoryWith(ctx, loners)
		loners.close()
		if err != nil {
			return err
		}
		with, err := t.memoryWith(ctx, members)
		if err != nil {
			return err
		}
		if err := members.say(ctx, t.groupSize, t.many.rate); err != nil {
			return err
		}
		after, err := t.memoryAtRest(ctx)
		if err != nil {
			return err
		}
		t.record("idle groups", "memory", mib(with-without))
		t.record("idle groups", "memory after one", mib(after-without))
		t.progressf("run %d: RSS %.0f MiB with %d connections, %.0f more with %d groups, %.0f more after one message in each", run+1, mib(without),
			t.many.users, mib(with-without), t.many.idle, mib(after-without))
		if err := t.sayMemory(ctx); err != nil {
			return err
		}
		members.loop.Disconnect(members.clients...)
		if err := t.awaitNobody(ctx); err != nil {
			return err
		}
	}
	return members.loop.Failures()
}

// memoryOfNew connects all clients, makes the groups, and records the difference in memory.
func (t *trial) memoryOfNew(ctx context.Context, members *assembly) error {
	without, err := t.memoryWith(ctx, members)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := members.create(ctx, t.many.idle, t.groupSize, creators); err != nil {
		return err
	}
	took := time.Since(begun)
	made, err := t.memoryAtRest(ctx)
	if err != nil {
		return err
	}
	t.record("idle groups", "memory made", mib(made-without))
	t.progressf("%d groups of %d were made in %s: RSS %.0f MiB more", t.many.idle, t.groupSize, took.Round(10*time.Millisecond), mib(made-without))
	members.loop.Disconnect(members.clients...)
	return t.awaitNobody(ctx)
}

// memoryWith restarts the services, connects all clients, and returns the RSS after a rest.
func (t *trial) memoryWith(ctx context.Context, a *assembly) (int64, error) {
	if err := t.restart(ctx); err != nil {
		return 0, err
	}
	if err := a.connect(ctx); err != nil {
		return 0, err
	}
	memory, err := t.memoryAtRest(ctx)
	if err != nil {
		return 0, err
	}
	return memory, a.loop.Failures()
}

// creators is the number of groups created at a time if the duration is not measured. crowding is the number if the
// duration is measured.
const (
	creators = 64
	crowding = 1024
)

// burst measures how long the gateways take to listen to many groups that are created at once. The measurement ends when
// every member has received the first event.
func burst(ctx context.Context, t *trial) error {
	for run := range t.Runs {
		if err := burstOnce(ctx, t, run); err != nil {
			return err
		}
	}
	return nil
}

func burstOnce(ctx context.Context, t *trial, run int) error {
	a, err := assemble(t.system, t.many.users)
	if err != nil {
		return err
	}
	defer a.close()
	if err := a.connect(ctx); err != nil {
		return err
	}
	var seen, last atomic.Int64
	all := make(chan struct{})
	want := int64(t.many.burst * t.groupSize)
	a.loop.Handle(&listener{event: func(_ *load.Client, _ uint64, _ []byte, now int64) {
		if seen.Add(1) == want {
			last.Store(now)
			close(all)
		}
	}})
	var committed int64
	begun := load.Now()
	spent, err := t.watched(ctx, func(ctx context.Context) error {
		if err := a.create(ctx, t.many.burst, t.groupSize, crowding); err != nil {
			return err
		}
		committed = load.Now()
		return a.await(ctx, all, func() string { return fmt.Sprintf("%d of %d members have their group", seen.Load(), want) })
	})
	if err != nil {
		return err
	}
	lag, took := max(0, time.Duration(last.Load()-committed)), time.Duration(last.Load()-begun)
	t.record("burst", "lag", ms(lag))
	t.record("burst", "time", ms(took))
	t.progressf("run %d: %d groups were committed after %.0f ms, and all members had them %.0f ms later; CPU %.0f µs a group (load generator %.0f)", run+1,
		t.many.burst, ms(time.Duration(committed-begun)), ms(lag), spent.micros(float64(t.many.burst)), perUnit(spent.load, float64(t.many.burst)))
	a.loop.Disconnect(a.clients...)
	return t.awaitNobody(ctx)
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
