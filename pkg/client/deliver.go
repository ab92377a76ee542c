package client

import (
	"context"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

const (
	// Notices other than events that may wait for the callbacks. They are few in any sane life; a connection that brings more is
	// ended, and the next one brings what still matters.
	maxNotices = 4096
	// Notices for which room is kept while there are none.
	keepNotices = 32
)

// notice is one thing that callbacks are told: an event, a hidden stretch, or a call.
type notice struct {
	conv *stream
	// branch is stream.branch when it was queued. A notice of an older branch moves no position.
	branch int
	event  Event
	origin *origin
	hidden *clientv1.Hidden
	call   func(ctx context.Context)
}

// notify queues a call. The lock is held.
func (c *Client) notify(call func(ctx context.Context)) {
	c.others++
	c.tellLater(notice{call: call})
}

// tellLater queues a notice. Events and other notices are counted by whoever queues them. The lock is held.
func (c *Client) tellLater(n notice) {
	c.queue = append(c.queue, n)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// deliver calls the callbacks, one at a time, until ctx ends. What is queued then is not told: it was not acknowledged, and its
// position was not saved.
func (c *Client) deliver(ctx context.Context) {
	var batch []notice
	for {
		c.mu.Lock()
		batch, c.queue = c.queue, batch[:0]
		c.mu.Unlock()
		if len(batch) == 0 {
			if cap(batch) > keepNotices {
				batch = nil
			}
			select {
			case <-c.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		for i := range batch {
			if ctx.Err() != nil {
				return
			}
			c.tell(ctx, batch[i])
			batch[i] = notice{}
		}
	}
}

func (c *Client) tell(ctx context.Context, n notice) {
	var position Position
	switch {
	case n.call != nil:
		n.call(ctx)
		c.mu.Lock()
		c.others--
		c.mu.Unlock()
		return
	case n.event.Event != nil:
		inside, span := c.beginReceive(ctx, n)
		if span != nil {
			defer span.End()
		}
		if c.cfg.OnEvent != nil {
			c.cfg.OnEvent(inside, n.event)
		}
		position = Position{Seq: n.event.GetSeq(), Hash: n.event.GetHash()}
	case n.hidden != nil:
		if c.cfg.OnHidden != nil {
			c.cfg.OnHidden(n.hidden)
		}
		position = Position{Seq: n.hidden.GetLast()}
	}
	c.save(ctx, n.conv.id, position)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.event.Event != nil {
		c.events--
	} else {
		c.others--
	}
	if n.branch == n.conv.branch {
		n.conv.delivered = position.Seq
		c.owe(n.conv)
	}
	c.pump()
}

// save keeps a position. Only the goroutine of the callbacks calls it. What was handed over is saved even while the client is
// being closed.
func (c *Client) save(ctx context.Context, conversationID string, position Position) {
	if c.cfg.Cursors == nil {
		return
	}
	if err := c.cfg.Cursors.Save(context.WithoutCancel(ctx), conversationID, position); err != nil {
		c.cfg.Log.Error("could not save a position", "conversation_id", conversationID, "error", err)
	}
}

func (c *Client) forget(ctx context.Context, conversationID string) {
	if c.cfg.Cursors == nil {
		return
	}
	if err := c.cfg.Cursors.Forget(context.WithoutCancel(ctx), conversationID); err != nil {
		c.cfg.Log.Error("could not forget a position", "conversation_id", conversationID, "error", err)
	}
}
