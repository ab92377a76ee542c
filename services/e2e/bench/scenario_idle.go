package bench

import (
	"context"
	"time"
)

// idleConnections measures the memory of idle connections. The services are restarted before each run, so that the memory
// used for making groups and by the previous run does not count.
func idleConnections(ctx context.Context, t *trial) error {
	c, err := gather(ctx, t.system, t.idle/t.idleGroup, t.idleGroup, true)
	if err != nil {
		return err
	}
	defer c.close()
	t.progressf("%d groups of %d are there", t.idle/t.idleGroup, t.idleGroup)
	for run := range t.Runs {
		if err := t.restart(ctx); err != nil {
			return err
		}
		before := t.memory()
		spent, err := t.watched(ctx, func(ctx context.Context) error {
			if t.Profile == "" || run < t.Runs-1 {
				return c.connect(ctx)
			}
			profiled := make(chan error, 1)
			go func() { profiled <- t.profile(ctx, t.Profile, t.name, 3*time.Second) }()
			err := c.connect(ctx)
			if failed := <-profiled; err == nil {
				err = failed
			}
			return err
		})
		if err != nil {
			return err
		}
		after, err := t.memoryAtRest(ctx)
		if err != nil {
			return err
		}
		n := float64(len(c.clients))
		each := float64(after-before) / 1024 / n
		t.record("idle", "memory", each)
		t.record("idle", "cpu", spent.micros(n))
		t.progressf("run %d: %.0f connections in %s, CPU %.0f µs each (load generator %.0f), RSS %.1f KiB each over %d MiB before", run+1, n,
			spent.elapsed.Round(10*time.Millisecond), spent.micros(n), perUnit(spent.load, n), each, before>>20)
		if err := t.sayMemory(ctx); err != nil {
			return err
		}
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

// sayMemory prints the memory use of the processes to which clients are connected.
func (t *trial) sayMemory(ctx context.Context) error {
	for _, p := range t.front() {
		metrics, err := p.Metrics(ctx)
		if err != nil {
			return err
		}
		mib := func(name string) float64 { return metrics["go_memstats_"+name+"_bytes"] / (1 << 20) }
		t.progressf("       %s: live and not yet collected %.0f MiB, heap in use %.0f, idle and not returned %.0f, stacks %.0f, other %.0f", p.Name(),
			mib("heap_alloc"), mib("heap_inuse"), mib("heap_idle")-mib("heap_released"), mib("stack_inuse"),
			mib("sys")-mib("heap_sys")-mib("stack_sys"))
	}
	return nil
}
