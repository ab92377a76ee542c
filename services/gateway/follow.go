package gateway

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

const (
	// maxFollowed bounds the deliveries that are followed at once on a gateway, and maxFollowedPerEvent those of one event: a
	// sampled event in a room of thousands would make more spans than anybody reads.
	maxFollowed         = 4096
	maxFollowedPerEvent = 64
	// followFor is how long an acknowledgement is waited for.
	followFor = 2 * time.Minute
)

// delivery follows one sampled event to one connection:
//
//	queued ──handed to the operating system──▶ written ──acknowledged by the client──▶ ended
//	   └─────────────┴── the connection ends, or nothing comes for too long ─────────────▲
//
// It is on two lists at once: that of the send queue until it is written, that of the seat until it has ended.
type delivery struct {
	tracer *tracer
	seq    uint64
	begun  time.Time
	mark   uint32 // of the send queue, once it is in there; guarded by the connection's sendMu

	mu          sync.Mutex
	write       trace.Span
	acknowledge trace.Span // nil until it is written
	acked       bool       // the acknowledgement came before it was noted that it is written
	ended       bool
}

// follow begins to follow the sampled events among entries to the seat's connection. Callers hold the room's mu.
func (s *seat) follow(entries []*entry, now time.Time) (followed []*delivery) {
	for _, e := range entries {
		if e.trace == nil || e.trace.writes >= maxFollowedPerEvent {
			continue
		}
		t := &s.conn.gw.trace
		select {
		case t.following <- struct{}{}:
		default:
			return followed
		}
		e.trace.writes++
		d := &delivery{tracer: t, seq: e.event.GetSeq(), begun: now}
		_, d.write = t.tracer.Start(trace.ContextWithSpanContext(context.Background(), e.trace.fanOut), spanWrite, trace.WithTimestamp(now), //nolint:spancheck // ended by written or abandon
			trace.WithAttributes(
				attrConversation.String(e.event.GetConversationId()), attrSeq.Int64(int64(d.seq)), attrConnection.String(s.conn.id),
			))
		followed = append(followed, d)
	}
	s.followed = append(s.followed, followed...)
	return followed
}

// written notes that the event's bytes were handed to the operating system.
func (d *delivery) written() {
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

// acknowledged notes that the client has the event.
func (d *delivery) acknowledged() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.acked = true; d.acknowledge != nil {
		d.endLocked("")
	}
}

// abandon ends what was begun, with the reason why it does not come to its end.
func (d *delivery) abandon(reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked(reason)
}

func (d *delivery) endLocked(reason string) {
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

// unfollow ends the following of what is acknowledged up to a seq. Callers hold the room's mu.
func (s *seat) unfollow(acked uint64) {
	kept := s.followed[:0]
	for _, d := range s.followed {
		if d.seq <= acked {
			d.acknowledged()
		} else {
			kept = append(kept, d)
		}
	}
	s.keep(kept)
}

// abandon ends the following of everything that was begun before a time. Callers hold the room's mu.
func (s *seat) abandon(before time.Time, reason string) {
	kept := s.followed[:0]
	for _, d := range s.followed {
		if d.begun.Before(before) {
			d.abandon(reason)
		} else {
			kept = append(kept, d)
		}
	}
	s.keep(kept)
}

func (s *seat) keep(followed []*delivery) {
	clear(s.followed[len(followed):])
	if s.followed = followed; len(followed) == 0 {
		s.followed = nil // most seats never have any
	}
}
