package bench

import (
	"context"
	"time"
)

// idleConnections weighs connections that do nothing. The services are started anew before each run, so that neither making the
// groups nor the run before counts.
func idleConnections(ctx context.Context, t *trial) error {
	c, err := gather(ctx, t.system, t.idle/t.idleGroup, t.idleGroup, true)
	if err != nil {
		return err
	}
	defer c.close()
	t.say("%d groups of %d are there", t.idle/t.idleGroup, t.idleGroup)
	for run := range t.Runs {
		if err := t.restart(ctx); err != nil {
			return err
		}
		before := t.memory()
		spent, err := t.measure(ctx, func(ctx context.Context) error {
			if t.Profile == "" || run < t.Runs-1 {
				return c.connect(ctx, c.clients, everybody)
			}
			profiled := make(chan error, 1)
			go func() { profiled <- t.profile(ctx, t.Profile, t.name, 3*time.Second) }()
			err := c.connect(ctx, c.clients, everybody)
			if failed := <-profiled; err == nil {
				err = failed
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := pause(ctx, t.idleRest); err != nil {
			return err
		}
		n := float64(len(c.clients))
		each := float64(t.memory()-before) / 1024 / n
		t.record("idle", "memory", each)
		t.record("idle", "cpu", spent.micros(n))
		t.say("run %d: %.0f connections in %s, CPU %.0f µs each (load generator %.0f), RSS %.1f KiB each over %d MiB before", run+1, n,
			spent.elapsed.Round(10*time.Millisecond), spent.micros(n), perUnit(spent.load, n), each, before>>20)
		c.loop.Disconnect(c.clients...)
		if err := c.loop.Failures(); err != nil {
			return err
		}
		if err := t.awaitNobody(ctx); err != nil {
			return err
		}
	}
	return nil
}
