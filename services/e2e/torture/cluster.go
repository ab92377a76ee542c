package torture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/proxy"
)

// partitions is the number of partitions of a suite, the default.
const partitions = 16

// leader kills the NATS server that leads a partition's stream.
func (i *injector) leader(ctx, restart context.Context, fault Fault) (time.Time, error) {
	leader, err := i.findLeader(restart, broker.StreamName(ids.Partition(fault.Partition)))
	if err != nil {
		return time.Now(), err
	}
	leader.Kill()
	_ = launch.Sleep(ctx, fault.For)
	ended := time.Now()
	return ended, i.again(restart, leader)
}

// findLeader polls until the stream has a leader. After earlier faults an election may be in progress, which takes up to
// nine seconds.
func (i *injector) findLeader(ctx context.Context, stream string) (*launch.Process, error) {
	for {
		asking, cancel := context.WithTimeout(ctx, 3*time.Second)
		leader, err := i.suite.StreamLeader(asking, stream)
		cancel()
		if err == nil {
			return leader, nil
		}
		if launch.Sleep(ctx, 100*time.Millisecond) != nil {
			return nil, fmt.Errorf("find a leader: %w", err)
		}
	}
}

// roll restarts all parts of a kind, one after another; each waits until the previous part works again.
func (i *injector) roll(restart context.Context, fault Fault) (ended time.Time, err error) {
	for _, part := range i.parts(fault.Part) {
		i.clean(part.Stop())
		ended = time.Now()
		if err := i.again(restart, part); err != nil {
			return ended, err
		}
	}
	return ended, nil
}

// storm makes all clients reconnect at the same moment.
func (i *injector) storm(restart context.Context, fault Fault) (time.Time, error) {
	if fault.Part == launch.Clients {
		for _, l := range i.suite.Between(launch.Clients, "gateway") {
			cut := l.Reset()
			i.count(func(c *Counts) { c.Cut += cut })
		}
		return time.Now(), nil
	}
	parts := i.parts(fault.Part)
	var dying sync.WaitGroup
	for _, part := range parts {
		dying.Go(part.Kill)
	}
	dying.Wait()
	ended := time.Now()
	group, restarting := errgroup.WithContext(restart)
	for _, part := range parts {
		i.versions.choose(part)
		group.Go(func() error { return part.Restart(restarting) })
	}
	return ended, group.Wait()
}

// network disturbs the network between two parts, in both directions.
func (i *injector) network(ctx context.Context, fault Fault) (time.Time, error) {
	links := i.suite.Between(fault.Part, fault.Other)
	if len(links) == 0 {
		return time.Now(), fmt.Errorf("there is no network between %s and %s", fault.Part, fault.Other)
	}
	weather, reset := fault.Trouble.weather()
	for _, l := range links {
		l.Set(weather)
		if reset {
			cut := l.Reset()
			i.count(func(c *Counts) { c.Cut += cut })
		}
	}
	_ = launch.Sleep(ctx, fault.For)
	setAll(links, proxy.Weather{})
	return time.Now(), nil
}

const (
	// refusedMetric is the metric for the batches that a history service refused because another worker had moved the
	// watermark.
	refusedMetric = `runnel_history_refused_total{operation="append",reason="watermark"}`
	// zombieTries is the maximum number of attempts to pause a worker so that it has a command to commit when it
	// continues.
	zombieTries = 4
	// holdBefore is how long a worker's commits are held in the network before it is paused. It is well below the
	// duration of the lease.
	holdBefore = 300 * time.Millisecond
	// zombieTime is how long a worker that continues may take to notice that it no longer owns its partitions.
	zombieTime = 2 * time.Second
)

// zombie pauses a worker beyond its lease. Other workers take its partitions and continue. When the paused worker
// continues with commands in memory, it tries to commit them, and the watermark must refuse them. Often the worker
// notices before that its lease has expired. Therefore, if a refusal must be shown, its commits are held in the network
// before the pause, and arrive after the other workers have continued.
func (i *injector) zombie(ctx context.Context, part launch.Part, fault Fault) (time.Time, error) {
	worker, ok := part.(*launch.Process)
	if !ok {
		return time.Now(), fmt.Errorf("%s is no worker", part.Name())
	}
	links := i.suite.Between(part.Name(), "history")
	for try := range zombieTries {
		before := i.refusals(ctx)
		if held := i.shown || try > 0; held && len(links) > 0 {
			setAll(links, proxy.Weather{Up: proxy.Flow{Hold: true}})
			_ = launch.Sleep(ctx, holdBefore)
		}
		worker.Pause()
		_ = launch.Sleep(ctx, fault.For)
		setAll(links, proxy.Weather{})
		worker.Resume()
		ended := time.Now()
		refused := i.awaitRefusal(ctx, before)
		i.count(func(c *Counts) { c.Zombies += refused })
		if refused > 0 || !i.shown || over(ctx) {
			return ended, nil
		}
	}
	i.record.Violated(violation("zombie", "%s was paused beyond its lease %d times under load, and not one commit of it was refused: nothing was shown",
		part.Name(), zombieTries))
	return time.Now(), nil
}

// awaitRefusal waits a limited time for refused commits, and returns their number.
func (i *injector) awaitRefusal(ctx context.Context, before float64) int {
	ctx, cancel := context.WithTimeout(ctx, zombieTime)
	defer cancel()
	for launch.Sleep(ctx, 100*time.Millisecond) == nil {
		if now := i.refusals(ctx); now > before {
			return int(now - before)
		}
	}
	return 0
}

// refusals returns the number of refused batches of all history services.
func (i *injector) refusals(ctx context.Context) (sum float64) {
	for _, p := range i.suite.Histories {
		metrics, _ := p.Metrics(ctx) // a service that is down refuses nothing
		sum += metrics[refusedMetric]
	}
	return sum
}

func setAll(links []*launch.Link, weather proxy.Weather) {
	for _, l := range links {
		l.Set(weather)
	}
}
