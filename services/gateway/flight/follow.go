package flight

import (
	"context"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxFollowed limits the deliveries that a gateway follows at once; maxFollowedPerEvent limits those of one event.
	// Without it, a sampled event in a room of thousands would create more spans than are useful.
	maxFollowed         = 4096
	maxFollowedPerEvent = 64
	// FollowFor is how long the gateway waits for the acknowledgement of a followed delivery.
	FollowFor = 2 * time.Minute
)

// Delivery follows one sampled event to one connection:
//
//	queued ──written to the socket──▶ written ──acknowledged by the client──▶ ended
//	   └─────────────┴── the connection ends, or no acknowledgement comes in time ─────────────▲
//
// A delivery is in the list of the send queue until it is written, and in the list of the subscription until it has ended.
type Delivery struct {
	tracer *Tracer
	seq    ids.Seq
	begun  time.Time
	// Mark identifies the event in the send queue; it is set when the event is queued. Guarded by the queue's lock.
	Mark uint32

	mu          sync.Mutex
	write       trace.Span
	acknowledge trace.Span // nil until the event is written
	acked       bool       // the acknowledgement was recorded before the write
	ended       bool
}

// Follow begins to follow a sampled event to a connection. It returns nil if the event is not sampled, or if a limit of
// followed deliveries is reached. The caller guards e.
func (t *Tracer) Follow(e *EventTrace, conversationID ids.Conversation, seq ids.Seq, connectionID ids.Connection, now time.Time) *Delivery {
	if e == nil || e.writes >= maxFollowedPerEvent {
		return nil
	}
	select {
	case t.following <- struct{}{}:
	default:
		return nil
	}
	e.writes++
	d := &Delivery{tracer: t, seq: seq, begun: now}
	_, d.write = t.tracer.Start(trace.ContextWithSpanContext(context.Background(), e.fanOut), spanWrite, trace.WithTimestamp(now), //nolint:spancheck // ended by Written or Abandon
		trace.WithAttributes(attrConversation.String(string(conversationID)), attrSeq.Int64(int64(seq)), attrConnection.String(string(connectionID))))
	return d
}

// Written records that the event's bytes were written to the socket.
func (d *Delivery) Written() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended || d.acknowledge != nil {
		return
	}
	d.write.End()
	_, d.acknowledge = d.tracer.tracer.Start(trace.ContextWithSpanContext(context.Background(), d.write.SpanContext()), spanAcknowledge) //nolint:spancheck // ended by acknowledged or abandon
	if d.acked {
		d.endLocked("")
	}
}

// Acknowledged records that the client has the event.
func (d *Delivery) Acknowledged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.acked = true; d.acknowledge != nil {
		d.endLocked("")
	}
}

// Abandon ends the open spans with the reason why the delivery was not completed.
func (d *Delivery) Abandon(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked(reason)
}

func (d *Delivery) endLocked(reason string) {
	if d.ended {
		return
	}
	d.ended = true
	<-d.tracer.following
	span := d.acknowledge
	if span == nil {
		span = d.write
	}
	if reason != "" && !d.acked {
		span.SetStatus(codes.Error, reason)
	}
	span.End()
}

// Followed are the unfinished deliveries to one connection in one conversation. The owner must guard it.
type Followed []*Delivery

// Acknowledge ends the deliveries of events up to a seq.
func (f *Followed) Acknowledge(seq ids.Seq) {
	kept := (*f)[:0]
	for _, d := range *f {
		if d.seq <= seq {
			d.Acknowledged()
		} else {
			kept = append(kept, d)
		}
	}
	f.keep(kept)
}

// Abandon ends all deliveries, with a reason.
func (f *Followed) Abandon(reason string) {
	for _, d := range *f {
		d.Abandon(reason)
	}
	f.keep((*f)[:0])
}

// AbandonBefore ends the deliveries that began before a time.
func (f *Followed) AbandonBefore(before time.Time, reason string) {
	kept := (*f)[:0]
	for _, d := range *f {
		if d.begun.Before(before) {
			d.Abandon(reason)
		} else {
			kept = append(kept, d)
		}
	}
	f.keep(kept)
}

func (f *Followed) keep(kept []*Delivery) {
	clear((*f)[len(kept):])
	if *f = kept; len(kept) == 0 {
		*f = nil // most subscriptions never have followed deliveries
	}
}
