package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// failover kills parts of the system under a steady load.
func failover(ctx context.Context, t *trial) error {
	c, err := t.present(ctx, t.failGroups, t.groupSize, true)
	if err != nil {
		return err
	}
	defer c.close()
	for run := range t.Runs {
		for _, fault := range []struct {
			key   string
			end   func(*launch.Process) error
			after time.Duration // how long the load continues, well above the target
		}{
			{"worker killed", func(p *launch.Process) error { p.Kill(); return nil }, t.failAfter},
			{"worker stopped", (*launch.Process).Stop, t.failAfter / 5},
		} {
			if err := workerEnds(ctx, t, c, run, fault.key, fault.end, fault.after); err != nil {
				return fmt.Errorf("%s: %w", fault.key, err)
			}
		}
		if err := gatewayDies(ctx, t, c, run); err != nil {
			return fmt.Errorf("gateway killed: %w", err)
		}
	}
	return nil
}

// talking keeps groups sending during a fault and until its effects have ended. It returns the longest wait for the
// outcome of a send, and the number of sends without an outcome: unlike the SDKs, the clients of the load do not retry.
func talking(ctx context.Context, t *trial, c *crowd, closed func(*load.Client, string, int64) error, connected func(*load.Client, int64), fault func(context.Context) error) (longest time.Duration, lost int64, err error) {
	waits := &histogram{}
	c.loop.Handle(&listener{
		outcome: func(client *load.Client, sent int64, seq uint64, now int64) {
			c.committed(client, seq)
			waits.add(time.Duration(now - sent))
		},
		closed: closed, connected: connected,
	})
	err = under(ctx, 1, t.Warmup, func(ctx context.Context) error {
		_, err := load.Pace(ctx, t.failRate, func(i int) error {
			// A client without a connection delays its messages. The gateway scenario measures this delay; it does not
			// count here.
			_ = c.send(c.turn(i))
			return nil
		})
		return err
	}, func(ctx context.Context, _ int) error { return fault(ctx) }, c, func(ctx context.Context) error {
		const patience = 2 * time.Second
		lost = c.unanswered(ctx, patience)
		c.answers.Add(lost) // the lost answers are no longer expected
		return c.wholeness(ctx)
	})
	return waits.longest(), lost, err
}

func workerEnds(ctx context.Context, t *trial, c *crowd, run int, key string, end func(*launch.Process) error, after time.Duration) error {
	victim, err := t.busiestWorker(ctx)
	if err != nil {
		return err
	}
	longest, lost, err := talking(ctx, t, c, nil, nil, func(ctx context.Context) error {
		if err := end(victim); err != nil {
			return err
		}
		return launch.Sleep(ctx, after)
	})
	if err != nil {
		return err
	}
	t.record(key, "time", ms(longest))
	t.progressf("run %d: %s: a send waited for %.0f ms at most, %d got no answer", run+1, key, ms(longest), lost)
	return victim.Restart(ctx)
}

// busiestWorker waits until the workers have distributed the partitions, and returns the worker with the most partitions.
func (t *trial) busiestWorker(ctx context.Context) (*launch.Process, error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		counts := make([]int, len(t.Deliveries))
		for i, p := range t.Deliveries {
			owned, err := t.partitions(ctx, p)
			if err != nil {
				return nil, err
			}
			counts[i] = owned
		}
		if slices.Min(counts) > 0 {
			return t.Deliveries[slices.Index(counts, slices.Max(counts))], nil
		}
		if err := launch.Sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("the workers own %v partitions: %w", counts, err)
		}
	}
}

// partitions counts the partitions that a worker runs.
func (t *trial) partitions(ctx context.Context, p *launch.Process) (int, error) {
	calls, err := dial(p)
	if err != nil {
		return 0, err
	}
	defer calls.Close()
	list, err := deliveryv1.NewDeliveryServiceClient(calls).ListPartitions(ctx, &deliveryv1.ListPartitionsRequest{})
	if err != nil {
		return 0, fmt.Errorf("list the partitions of %s: %w", p.Name(), err)
	}
	running := 0
	for _, partition := range list.GetPartitions() {
		if partition.GetState() == "running" {
			running++
		}
	}
	return running, nil
}

// gatewayDies kills a gateway. Its clients reconnect to another gateway with full jitter, like the SDKs.
func gatewayDies(ctx context.Context, t *trial, c *crowd, run int) error {
	victim := run % len(t.Gateways)
	elsewhere := t.gateways[(victim+1)%len(t.gateways)]
	var hit uint64
	for _, client := range c.clients {
		if client.Index%len(t.gateways) == victim {
			hit++
		}
	}
	var died atomic.Int64
	away := &histogram{}
	tries := make([]int, len(c.clients)) // used by the loop only
	closed := func(client *load.Client, _ string, _ int64) error {
		if died.Load() == 0 || client.Index%len(t.gateways) != victim {
			return errors.New("the connection of a gateway that was not killed was lost")
		}
		const first, most = 200 * time.Millisecond, 20 * time.Second // the values of pkg/client
		bound := min(most, first<<min(tries[client.Index], 10))
		tries[client.Index]++
		time.AfterFunc(rand.N(bound), func() { c.loop.Connect(client, elsewhere) })
		return nil
	}
	connected := func(_ *load.Client, now int64) { away.add(time.Duration(now - died.Load())) }
	_, lost, err := talking(ctx, t, c, closed, connected, func(ctx context.Context) error {
		died.Store(load.Now())
		t.Gateways[victim].Kill()
		ctx, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		for away.count() < hit {
			if err := launch.Sleep(ctx, 10*time.Millisecond); err != nil {
				return fmt.Errorf("%d of %d clients are connected again: %w", away.count(), hit, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	t.record("gateway killed", "p50", ms(away.quantile(0.5)))
	t.record("gateway killed", "last", ms(away.longest()))
	t.progressf("run %d: gateway killed: %d clients live elsewhere, the median after %.0f ms, the last after %.0f ms; %d sends got no answer", run+1,
		hit, ms(away.quantile(0.5)), ms(away.longest()), lost)
	if err := t.Gateways[victim].Restart(ctx); err != nil {
		return err
	}
	c.loop.Disconnect(c.clients...)
	return c.connect(ctx)
}
