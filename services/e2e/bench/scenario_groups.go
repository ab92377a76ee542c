package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// talk contains the measurements of conversations in one window of time.
type talk struct {
	deliveries histogram // from the sender to a receiver
	acks       histogram // from the sender until the committed outcome is back at the sender
}

// paced makes groups send at a fixed rate, regardless of the server's speed, and measures the conversations.
func paced(ctx context.Context, t *trial, c *crowd, rate int, measured func(run int, seen *talk, spent cost)) error {
	var current atomic.Pointer[talk]
	current.Store(&talk{}) // receives the measurements of the warm-up
	c.loop.Handle(&listener{
		event: func(client *load.Client, _ uint64, event []byte, now int64) {
			if sent := load.SentAt(event); sent > 0 && !load.SentBy(event, client.User) {
				current.Load().deliveries.add(time.Duration(now - sent))
			}
		},
		outcome: func(client *load.Client, sent int64, seq uint64, now int64) {
			c.committed(client, seq)
			current.Load().acks.add(time.Duration(now - sent))
		},
	})
	return under(ctx, t.Runs, t.Warmup, func(ctx context.Context) error {
		_, err := load.Pace(ctx, rate, func(i int) error {
			return c.send(c.turn(i))
		})
		return err
	}, func(ctx context.Context, run int) error {
		seen := &talk{}
		current.Store(seen)
		spent, err := t.window(ctx, run)
		current.Store(&talk{})
		if err == nil && seen.acks.count() == 0 {
			err = fmt.Errorf("no message was committed in %v", spent.elapsed)
		}
		if err == nil {
			measured(run, seen, spent)
		}
		return err
	}, c, c.settle)
}

// under measures a running load several times. It then ends the load, and uses settle to check that it was carried out
// correctly.
func under(ctx context.Context, runs int, warmup time.Duration, play func(context.Context) error, measure func(ctx context.Context, run int) error, c *crowd, settle func(context.Context) error) error {
	playing, stop := context.WithCancel(ctx)
	defer stop()
	played := make(chan error, 1)
	go func() { played <- play(playing) }()
	err := launch.Sleep(ctx, warmup)
	for run := 0; run < runs && err == nil; run++ {
		err = measure(ctx, run)
	}
	stop()
	if failed := <-played; failed != nil && err == nil {
		err = failed
	}
	if failed := c.loop.Failures(); failed != nil {
		return failed // this error explains any later ones
	}
	if err != nil {
		return err
	}
	return settle(ctx)
}

func groupsPaced(ctx context.Context, t *trial) error { return groupsAt(ctx, t, "groups", t.rate) }

func groupsFast(ctx context.Context, t *trial) error {
	return groupsAt(ctx, t, "groups fast", t.fastRate)
}

func groupsAt(ctx context.Context, t *trial, key string, rate int) error {
	c, err := t.talkers(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	return paced(ctx, t, c, rate, func(run int, seen *talk, spent cost) {
		n := float64(seen.acks.count())
		p50, p99 := seen.deliveries.quantile(0.5), seen.deliveries.quantile(0.99)
		t.record(key, "p50", ms(p50))
		t.record(key, "p99", ms(p99))
		t.record(key, "cpu", spent.micros(n))
		t.progressf("run %d: %.0f messages/s, sender → receiver p50 %.2f ms, p99 %.2f ms, CPU %.0f µs a message (load generator %.0f)",
			run+1, spent.rate(n), ms(p50), ms(p99), spent.micros(n), perUnit(spent.load, n))
	})
}

func committedAcks(ctx context.Context, t *trial) error {
	c, err := t.talkers(ctx, true)
	if err != nil {
		return err
	}
	defer c.close()
	for _, rate := range t.ackRates {
		key := fmt.Sprintf("acks %d", rate)
		err := paced(ctx, t, c, rate, func(run int, seen *talk, spent cost) {
			p50, p99 := seen.acks.quantile(0.5), seen.acks.quantile(0.99)
			t.record(key, "p50", ms(p50))
			t.record(key, "p99", ms(p99))
			t.progressf("run %d: %.0f messages/s, committed ack p50 %.2f ms, p99 %.2f ms", run+1, spent.rate(float64(seen.acks.count())), ms(p50), ms(p99))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// groupsClosed makes every client send its next message when its previous one is committed.
func groupsClosed(ctx context.Context, t *trial) error { return closedLoop(ctx, t, "closed", true) }

func groupsClosedWithoutReceipts(ctx context.Context, t *trial) error {
	return closedLoop(ctx, t, "closed, no receipts", false)
}

func closedLoop(ctx context.Context, t *trial, key string, receipts bool) error {
	c, err := t.talkers(ctx, receipts)
	if err != nil {
		return err
	}
	defer c.close()
	var current atomic.Pointer[talk]
	current.Store(&talk{})
	var ending atomic.Bool
	var unsent atomic.Pointer[error]
	c.loop.Handle(&listener{outcome: func(client *load.Client, sent int64, seq uint64, now int64) {
		c.committed(client, seq)
		current.Load().acks.add(time.Duration(now - sent))
		if ending.Load() {
			return
		}
		if err := c.send(client); err != nil {
			unsent.Store(&err)
		}
	}})
	return under(ctx, t.Runs, t.Warmup, func(ctx context.Context) error {
		for _, client := range c.clients {
			if err := c.send(client); err != nil {
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
		seen := &talk{}
		current.Store(seen)
		spent, err := t.window(ctx, run)
		current.Store(&talk{})
		if err != nil {
			return err
		}
		n := float64(seen.acks.count())
		if n == 0 {
			return fmt.Errorf("no message was committed in %v", spent.elapsed)
		}
		t.record(key, "rate", spent.rate(n))
		t.record(key, "cpu", spent.micros(n))
		t.record(key, "ack p50", ms(seen.acks.quantile(0.5)))
		t.record(key, "ack p99", ms(seen.acks.quantile(0.99)))
		t.progressf("run %d: %.0f messages/s, CPU %.1f µs a message (load generator %.1f), ack p50 %.1f ms, p99 %.1f ms", run+1,
			spent.rate(n), spent.micros(n), perUnit(spent.load, n), ms(seen.acks.quantile(0.5)), ms(seen.acks.quantile(0.99)))
		return nil
	}, c, c.settle)
}

// talkers returns connected clients in groups.
func (t *trial) talkers(ctx context.Context, receipts bool) (*crowd, error) {
	return t.present(ctx, t.groups, t.groupSize, receipts)
}

// present makes groups and connects all clients.
func (t *trial) present(ctx context.Context, groups, size int, receipts bool) (*crowd, error) {
	begun := time.Now()
	c, err := gather(ctx, t.system, groups, size, receipts)
	if err != nil {
		return nil, err
	}
	if err := c.connect(ctx); err != nil {
		c.close()
		return nil, err
	}
	t.progressf("%d groups of %d are there and connected after %s", groups, size, time.Since(begun).Round(10*time.Millisecond))
	return c, nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func perUnit(d time.Duration, n float64) float64 { return float64(d.Nanoseconds()) / 1e3 / n }
