package client

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Maximum number of notices other than events that may wait for the callbacks. In normal operation there are few. If
	// a connection brings more, the client ends it; the next connection brings the notices that are still relevant.
	maxNotices = 4096
	// Capacity for notices that is kept while the queue is empty.
	keepNotices = 32
)

// callbacks is the queue of notices to the program. One goroutine (deliver) calls the program's callbacks, one at a time and in
// the order of the queue, and saves positions.
//
// It is safe for concurrent use. Its lock is the innermost one; no callback is called under it.
type callbacks struct {
	cfg *Config
	// tracer is nil without a TracerProvider.
	tracer trace.Tracer
	// handed is called, without a lock, when every event of a conversation up to seq was passed to the program.
	handed func(conv *inbox.Conversation, branch int, seq uint64)
	// wake wakes deliver when the queue is not empty.
	wake chan struct{}
	// The numbers of queued events and of other queued notices that were not delivered yet.
	events, others atomic.Int64

	mu    sync.Mutex
	queue []notice
	// receipts are the receipts in the queue, by conversation.
	receipts map[string]*queuedReceipt
}

// notice is one item for the program: an event, a hidden stretch, or a call of another callback.
type notice struct {
	// conv and branch identify the conversation position that an event or a hidden stretch moves.
	conv   *inbox.Conversation
	branch int

	event  Event
	origin *tracing.Origin
	hidden *clientv1.Hidden
	call   func(ctx context.Context)
}

// queuedReceipt is the newest receipt of a conversation; nil after a fork has invalidated it.
type queuedReceipt struct{ newest *conversationv1.Receipt }

func newCallbacks(cfg *Config, tracer trace.Tracer, handed func(conv *inbox.Conversation, branch int, seq uint64)) *callbacks {
	return &callbacks{cfg: cfg, tracer: tracer, handed: handed, wake: make(chan struct{}, 1), receipts: map[string]*queuedReceipt{}}
}

// HasRoom returns true if the queue accepts another event. If it returns false, no event may be queued.
func (cb *callbacks) HasRoom() bool { return cb.events.Load() < int64(cb.cfg.MaxEvents) }

// HasRoomForPage returns true if the queue accepts enough events to make reading a page worthwhile.
func (cb *callbacks) HasRoomForPage() bool { return cb.events.Load() <= int64(cb.cfg.MaxEvents)/2 }

// overflows returns true if too many notices other than events wait.
func (cb *callbacks) overflows() bool { return cb.others.Load() > maxNotices }

// Event queues an event.
func (cb *callbacks) Event(conv *inbox.Conversation, branch int, came stream.Arrival, content chain.Content) {
	cb.events.Add(1)
	cb.add(notice{conv: conv, branch: branch, event: Event{Event: came.Event, Content: content}, origin: came.Origin})
}

// Hidden queues a stretch of events that the user may not see.
func (cb *callbacks) Hidden(conv *inbox.Conversation, branch int, hidden *clientv1.Hidden) {
	cb.others.Add(1)
	cb.add(notice{conv: conv, branch: branch, hidden: hidden})
}

// Begins queues saving the position after which a conversation begins.
func (cb *callbacks) Begins(conversationID string, after uint64) {
	if cb.cfg.Cursors != nil {
		cb.addCall(func(ctx context.Context) { cb.save(ctx, conversationID, Position{Seq: after}) })
	}
}

// Attached queues a conversation that is new to the program.
func (cb *callbacks) Attached(conversation *clientv1.Conversation) {
	if cb.cfg.OnAttached != nil {
		cb.addCall(func(context.Context) { cb.cfg.OnAttached(conversation) })
	}
}

// Detached queues the end of the user's membership.
func (cb *callbacks) Detached(detached *clientv1.Detached) {
	cb.addCall(func(ctx context.Context) {
		cb.forget(ctx, detached.GetConversationId())
		if cb.cfg.OnDetached != nil {
			cb.cfg.OnDetached(detached)
		}
	})
}

// Broken queues the error of a conversation whose log contradicts itself.
func (cb *callbacks) Broken(err error) {
	if cb.cfg.OnBroken != nil {
		cb.addCall(func(context.Context) { cb.cfg.OnBroken(err) })
	}
}

// Receipt queues a receipt. A newer receipt of a conversation replaces the queued one.
func (cb *callbacks) Receipt(receipt *conversationv1.Receipt) {
	if cb.cfg.OnReceipt == nil {
		return
	}
	id := receipt.GetConversationId()
	cb.mu.Lock()
	queued := cb.receipts[id]
	if queued != nil {
		queued.newest = receipt
		cb.mu.Unlock()
		return
	}
	queued = &queuedReceipt{newest: receipt}
	cb.receipts[id] = queued
	cb.mu.Unlock()
	cb.addCall(func(context.Context) {
		cb.mu.Lock()
		newest := queued.newest
		if newest != nil {
			delete(cb.receipts, id)
		}
		cb.mu.Unlock()
		if newest != nil {
			cb.cfg.OnReceipt(newest)
		}
	})
}

// fork queues a fork; hash is the hash of the last common event. A queued receipt belongs to the old branch and is
// dropped.
func (cb *callbacks) fork(conv *inbox.Conversation, branch int, fork Fork, hash []byte) {
	cb.mu.Lock()
	if queued := cb.receipts[fork.ConversationID]; queued != nil {
		queued.newest = nil
		delete(cb.receipts, fork.ConversationID)
	}
	cb.mu.Unlock()
	cb.addCall(func(ctx context.Context) {
		if cb.cfg.OnForked != nil {
			cb.cfg.OnForked(fork)
		}
		cb.save(ctx, fork.ConversationID, Position{Seq: fork.To, Hash: hash})
		cb.handed(conv, branch, fork.To)
	})
}

// state queues the new state of the client.
func (cb *callbacks) state(state State) {
	if cb.cfg.OnState != nil {
		cb.addCall(func(context.Context) { cb.cfg.OnState(state) })
	}
}

// accepted queues the notice that the broker holds a command.
func (cb *callbacks) accepted(ticket *Ticket) {
	if cb.cfg.OnAccepted != nil {
		cb.addCall(func(context.Context) { cb.cfg.OnAccepted(ticket) })
	}
}

func (cb *callbacks) addCall(call func(ctx context.Context)) {
	cb.others.Add(1)
	cb.add(notice{call: call})
}

// add queues a notice that was already counted.
func (cb *callbacks) add(n notice) {
	cb.mu.Lock()
	cb.queue = append(cb.queue, n)
	cb.mu.Unlock()
	select {
	case cb.wake <- struct{}{}:
	default:
	}
}

// deliver calls the callbacks until ctx ends. Notices that are then still queued are not delivered. Their events were not
// acknowledged and their positions not saved, so they come again.
func (cb *callbacks) deliver(ctx context.Context) {
	var batch []notice
	for {
		cb.mu.Lock()
		batch, cb.queue = cb.queue, batch[:0]
		cb.mu.Unlock()
		if len(batch) == 0 {
			if cap(batch) > keepNotices {
				batch = nil
			}
			select {
			case <-cb.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		for i := range batch {
			if ctx.Err() != nil {
				return
			}
			cb.tell(ctx, &batch[i])
			batch[i] = notice{}
		}
	}
}

// tell passes one notice to the program.
func (cb *callbacks) tell(ctx context.Context, n *notice) {
	switch {
	case n.event.Event != nil:
		cb.tellEvent(ctx, n)
		return
	case n.hidden != nil:
		if cb.cfg.OnHidden != nil {
			cb.cfg.OnHidden(n.hidden)
		}
		cb.save(ctx, n.conv.ID(), Position{Seq: n.hidden.GetLast()})
		cb.others.Add(-1)
		cb.handed(n.conv, n.branch, n.hidden.GetLast())
	default:
		n.call(ctx)
		cb.others.Add(-1)
	}
}

func (cb *callbacks) tellEvent(ctx context.Context, n *notice) {
	inside, span := beginReceive(ctx, cb.tracer, n.origin, n.event)
	if span != nil {
		// The span includes the acknowledgement.
		defer span.End()
	}
	if cb.cfg.OnEvent != nil {
		cb.cfg.OnEvent(inside, n.event)
	}
	cb.save(ctx, n.conv.ID(), Position{Seq: n.event.GetSeq(), Hash: n.event.GetHash()})
	cb.events.Add(-1)
	cb.handed(n.conv, n.branch, n.event.GetSeq())
}

// save stores a position. The position of a delivered event is saved even while the client is being closed.
func (cb *callbacks) save(ctx context.Context, conversationID string, position Position) {
	if cb.cfg.Cursors == nil {
		return
	}
	if err := cb.cfg.Cursors.Save(context.WithoutCancel(ctx), conversationID, position); err != nil {
		cb.cfg.Log.Error("could not save a position", "conversation_id", conversationID, "error", err)
	}
}

func (cb *callbacks) forget(ctx context.Context, conversationID string) {
	if cb.cfg.Cursors == nil {
		return
	}
	if err := cb.cfg.Cursors.Forget(context.WithoutCancel(ctx), conversationID); err != nil {
		cb.cfg.Log.Error("could not forget a position", "conversation_id", conversationID, "error", err)
	}
}
