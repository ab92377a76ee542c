package bench

import (
	"context"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// growth measures how memory rises under traffic. It compares freshly started services that have all clients connected
// with the same services after some messages, and after many messages.
func growth(ctx context.Context, t *trial) error {
	c, err := gather(ctx, t.system, t.groups, t.groupSize, true)
	if err != nil {
		return err
	}
	defer c.close()
	for run := range t.Runs {
		if err := t.restart(ctx); err != nil {
			return err
		}
		if err := c.connect(ctx); err != nil {
			return err
		}
		before, err := t.memoryAtRest(ctx)
		if err != nil {
			return err
		}
		some, err := t.memoryAfter(ctx, c, t.some, t.rate)
		if err != nil {
			return err
		}
		many, err := t.memoryAfter(ctx, c, t.lots-t.some, t.fastRate)
		if err != nil {
			return err
		}
		t.record("growth", "some", mib(some-before))
		t.record("growth", "many", mib(many-before))
		t.progressf("run %d: RSS %.0f MiB with %d connections, %.0f more after %d messages, %.0f more after %d", run+1, mib(before), len(c.clients),
			mib(some-before), t.some, mib(many-before), t.lots)
		if err := t.sayMemory(ctx); err != nil {
			return err
		}
		c.loop.Disconnect(c.clients...)
		if err := t.awaitNobody(ctx); err != nil {
			return err
		}
	}
	return c.loop.Failures()
}

// memoryAfter sends messages to all groups in turn. A slow server lowers the rate. After all clients have received the
// messages, and after a rest, it returns the RSS.
func (t *trial) memoryAfter(ctx context.Context, c *crowd, messages, rate int) (int64, error) {
	c.loop.Handle(&listener{outcome: func(client *load.Client, _ int64, seq uint64, _ int64) { c.committed(client, seq) }})
	sending, stop := context.WithCancel(ctx)
	defer stop()
	_, err := load.Pace(sending, rate, func(i int) error {
		if i == messages-1 {
			stop()
		}
		c.ease(ctx)
		return c.send(c.turn(i))
	})
	if err != nil {
		return 0, err
	}
	if err := c.settle(ctx); err != nil {
		return 0, err
	}
	return t.memoryAtRest(ctx)
}
