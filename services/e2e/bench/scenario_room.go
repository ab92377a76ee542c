package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// roomFlatOut makes one member send as fast as all members receive. It keeps a fixed number of messages in flight, and
// sends a new message whenever all other members have received one. If the sender waited only for outcomes, the scenario
// would measure how fast the server closes slow readers: commits are much faster than deliveries to a thousand members.
func roomFlatOut(ctx context.Context, t *trial) error {
	return roomWithWindow(ctx, t, "flood", t.roomWindow)
}

func roomFewInFlight(ctx context.Context, t *trial) error {
	return roomWithWindow(ctx, t, "window", t.fewInFlight)
}

func roomWithWindow(ctx context.Context, t *trial, key string, inFlight int) error {
	c, err := t.present(ctx, 1, t.room, true)
	if err != nil {
		return err
	}
	defer c.close()
	var deliveries atomic.Uint64
	var ending atomic.Bool
	var unsent atomic.Pointer[error]
	sender := c.clients[0]
	c.loop.Handle(&listener{
		event: func(*load.Client, uint64, []byte, int64) {
			if deliveries.Add(1)%uint64(t.room) != 0 || ending.Load() {
				return
			}
			if err := c.send(sender); err != nil {
				unsent.Store(&err)
			}
		},
		outcome: func(client *load.Client, _ int64, seq uint64, _ int64) { c.committed(client, seq) },
	})
	return under(ctx, t.Runs, t.Warmup, func(ctx context.Context) error {
		for range inFlight {
			if err := c.send(sender); err != nil {
				return err
			}
		}
		<-ctx.Done()
		ending.Store(true)
		if err := unsent.Load(); err != nil {
			return *err
		}
		return nil
	}, func(ctx context.Context, run int) error {
		before, bytes := deliveries.Load(), c.loop.Bytes()
		spent, err := t.window(ctx, run)
		n := float64(deliveries.Load() - before)
		if err == nil && n == 0 {
			err = fmt.Errorf("nothing was delivered in %v", spent.elapsed)
		}
		if err != nil {
			return err
		}
		t.record(key, "rate", spent.rate(n))
		t.record(key, "cpu", spent.micros(n))
		t.progressf("run %d: %.0f deliveries/s of %.0f bytes, CPU %.2f µs each (load generator %.2f)", run+1, spent.rate(n),
			float64(c.loop.Bytes()-bytes)/n, spent.micros(n), perUnit(spent.load, n))
		return nil
	}, c, c.settle)
}

// roomPaced makes one member send at a fixed rate.
func roomPaced(ctx context.Context, t *trial) error { return pacedRoom(ctx, t, "room", true) }

func roomPacedWithoutReceipts(ctx context.Context, t *trial) error {
	return pacedRoom(ctx, t, "room, no receipts", false)
}

func pacedRoom(ctx context.Context, t *trial, key string, receipts bool) error {
	c, err := t.present(ctx, 1, t.room, receipts)
	if err != nil {
		return err
	}
	defer c.close()
	var current atomic.Pointer[histogram]
	current.Store(&histogram{})
	c.loop.Handle(&listener{
		event: func(_ *load.Client, _ uint64, event []byte, now int64) {
			if sent := load.SentAt(event); sent > 0 {
				current.Load().add(time.Duration(now - sent))
			}
		},
		outcome: func(client *load.Client, _ int64, seq uint64, _ int64) { c.committed(client, seq) },
	})
	return under(ctx, t.Runs, t.Warmup, func(ctx context.Context) error {
		_, err := load.Pace(ctx, t.roomRate, func(int) error { return c.send(c.clients[0]) })
		return err
	}, func(ctx context.Context, run int) error {
		seen := &histogram{}
		current.Store(seen)
		spent, err := t.window(ctx, run)
		current.Store(&histogram{})
		n := float64(seen.count())
		if err == nil && n == 0 {
			err = fmt.Errorf("nothing was delivered in %v", spent.elapsed)
		}
		if err != nil {
			return err
		}
		p50, p99 := seen.quantile(0.5), seen.quantile(0.99)
		t.record(key, "p50", ms(p50))
		t.record(key, "p99", ms(p99))
		t.record(key, "cpu", spent.micros(n))
		t.progressf("run %d: %.0f deliveries/s, p50 %.2f ms, p99 %.2f ms, CPU %.2f µs each (load generator %.2f)", run+1, spent.rate(n),
			ms(p50), ms(p99), spent.micros(n), perUnit(spent.load, n))
		return nil
	}, c, c.settle)
}
