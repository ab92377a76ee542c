package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// reconnectPause is the time between two connection attempts of a client. It is short, so that the result shows the
// server's time and not the clients'.
const reconnectPause = 10 * time.Millisecond

// restart kills standalone under a steady load and restarts it at once. It measures the time from the kill to the first
// commit of a message that was sent after the kill.
func restart(ctx context.Context, t *trial) error {
	c, err := t.present(ctx, t.failGroups, t.groupSize, true)
	if err != nil {
		return err
	}
	defer c.close()
	for run := range t.Runs {
		if err := restartOnce(ctx, t, c, run); err != nil {
			return err
		}
	}
	return nil
}

func restartOnce(ctx context.Context, t *trial, c *crowd, run int) error {
	var died, first atomic.Int64
	committed := make(chan struct{})
	c.loop.Handle(&listener{
		outcome: func(client *load.Client, sent int64, seq uint64, now int64) {
			c.committed(client, seq)
			if at := died.Load(); at > 0 && sent > at && first.CompareAndSwap(0, now) {
				close(committed)
			}
		},
		closed: func(client *load.Client, _ string, _ int64) error {
			time.AfterFunc(reconnectPause, func() { c.loop.Connect(client, t.gateways[0]) })
			return nil
		},
	})
	var lost int64
	var ready time.Duration
	err := under(ctx, 1, t.Warmup, func(ctx context.Context) error {
		_, err := load.Pace(ctx, t.failRate, func(i int) error {
			_ = c.send(c.turn(i)) // a client without a connection sends nothing
			return nil
		})
		return err
	}, func(ctx context.Context, _ int) error {
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		begun := load.Now()
		t.Standalone.Kill()
		died.Store(begun)
		if err := t.Standalone.Restart(ctx); err != nil {
			return err
		}
		ready = time.Duration(load.Now() - begun)
		select {
		case <-committed:
		case <-ctx.Done():
			return fmt.Errorf("nothing was committed after the restart: %w", ctx.Err())
		}
		for {
			open := 0
			c.loop.Do(func() {
				for _, client := range c.clients {
					if client.Open() {
						open++
					}
				}
			})
			if open == len(c.clients) {
				return nil
			}
			if err := launch.Sleep(ctx, reconnectPause); err != nil {
				return fmt.Errorf("%d of %d clients are connected again: %w", open, len(c.clients), err)
			}
		}
	}, c, func(ctx context.Context) error {
		const patience = 2 * time.Second
		lost = c.unanswered(ctx, patience)
		c.answers.Add(lost) // lost messages are no longer awaited
		return c.wholeness(ctx)
	})
	if err != nil {
		return err
	}
	took := time.Duration(first.Load() - died.Load())
	t.record("restart", "time", ms(took))
	t.progressf("run %d: the next commit came %.0f ms after the kill; ready after %.0f ms; %d sends got no answer", run+1, ms(took), ms(ready), lost)
	return nil
}
