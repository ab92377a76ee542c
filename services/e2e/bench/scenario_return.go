package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

// manyReturn disconnects all members of one room, lets messages be sent, and reconnects all members at once. No member
// stays connected, so the gateway has no events of the room in memory.
func manyReturn(ctx context.Context, t *trial) error {
	c, err := t.present(ctx, 1, t.back, true)
	if err != nil {
		return err
	}
	defer c.close()
	for run := range t.Runs {
		c.loop.Disconnect(c.clients...)
		if err := t.awaitNobody(ctx); err != nil {
			return err
		}
		head, err := t.write(ctx, c.clients[0].User, c.clients[0].Conversation, t.missed)
		if err != nil {
			return err
		}
		c.heads[0].Store(head)
		took, spent, err := t.comeBack(ctx, c, c.clients, head)
		if err != nil {
			return err
		}
		t.record("return", "time", ms(took))
		t.progressf("run %d: %d clients have all of %d events each after %.0f ms, CPU %.0f µs a client (load generator %.0f)", run+1, len(c.clients), t.missed,
			ms(took), spent.micros(float64(len(c.clients))), perUnit(spent.load, float64(len(c.clients))))
	}
	return c.settle(ctx)
}

// oneReturns makes one client read a long stretch that no other client reads.
func oneReturns(ctx context.Context, t *trial) error {
	const members = 8 // they write concurrently
	c, err := gather(ctx, t.system, 1, members, true)
	if err != nil {
		return err
	}
	defer c.close()
	first := c.heads[0].Load()
	writing, group := errgroup.WithContext(ctx)
	heads := make([]uint64, members)
	for i, client := range c.clients {
		writing.Go(func() (err error) {
			heads[i], err = t.write(group, client.User, client.Conversation, t.long/members)
			return err
		})
	}
	if err := writing.Wait(); err != nil {
		return err
	}
	head := first + uint64(t.long/members*members)
	c.heads[0].Store(head)
	t.progressf("%d events are there", head-first)
	reader := c.clients[0]
	for run := range t.Runs {
		c.loop.Disconnect(reader)
		if err := t.awaitNobody(ctx); err != nil {
			return err
		}
		c.loop.Do(func() { reader.StartAt(first) })
		took, spent, err := t.comeBack(ctx, c, []*load.Client{reader}, head)
		if err != nil {
			return err
		}
		t.record("long", "time", ms(took))
		t.progressf("run %d: one client has %d events after %.0f ms, CPU %.1f µs an event (load generator %.1f)", run+1, head-first, ms(took),
			spent.micros(float64(head-first)), perUnit(spent.load, float64(head-first)))
	}
	return nil
}

// comeBack connects all clients at once, and measures the time until each has received everything up to head.
func (t *trial) comeBack(ctx context.Context, c *crowd, clients []*load.Client, head uint64) (took time.Duration, spent cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	whole := make(chan int64, len(clients))
	c.loop.Handle(&listener{event: func(_ *load.Client, seq uint64, _ []byte, now int64) {
		if seq == head {
			whole <- now
		}
	}})
	spent, err = t.watched(ctx, func(ctx context.Context) error {
		begun := load.Now()
		for _, client := range clients {
			c.loop.Connect(client, t.gateways[client.Index%len(t.gateways)])
		}
		for done := range clients {
			select {
			case now := <-whole:
				took = max(took, time.Duration(now-begun))
			case <-ctx.Done():
				return fmt.Errorf("%d of %d clients are whole: %w", done, len(clients), ctx.Err())
			}
		}
		return nil
	})
	if failed := c.loop.Failures(); failed != nil {
		err = failed
	}
	return took, spent, err
}
