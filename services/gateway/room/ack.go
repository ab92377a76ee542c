package room

import (
	"math/rand/v2"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
)

// Acknowledge records how far the client has received and read. It returns false for a seq that does not exist.
func (s *Subscription) Acknowledge(delivered, read ids.Seq, now time.Time) bool {
	r := s.room.Load()
	if r == nil {
		return true // the subscription is being added to its room
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// The client may know a newer event from the list of conversations than the room knows from live events. A room that
	// is not ready does not know its head: then nothing is recorded here, and the owner of the partition checks the
	// position.
	if max(delivered, read) > max(r.head, r.seen, s.told) {
		return !r.ready
	}
	s.read = max(s.read, read)
	if delivered > s.acked {
		r.hub.cfg.Recorder.Subscription(gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, now, r.key, s.to.Number, 0, s.acked+1, delivered)
		r.measureDeliveredLocked(s, delivered, now)
		if s.followed != nil {
			if s.followed.Acknowledge(delivered); len(*s.followed) == 0 {
				s.followed = nil
			}
		}
		s.acked, s.tries, s.retryAt = delivered, 0, 0
		if s.acked < s.sent {
			s.retryAt = now.Add(r.hub.cfg.AckTimeout).UnixNano()
		}
	}
	return true
}

// measureDeliveredLocked measures how long an event took until the first user other than its sender acknowledged it. It
// measures only events that were sent to such a user at once.
func (r *Room) measureDeliveredLocked(s *Subscription, seq ids.Seq, now time.Time) {
	if seq > r.head || seq < r.firstRecentLocked() {
		return
	}
	e := r.recent[seq-r.firstRecentLocked()]
	if e.pending && ids.User(e.event.GetSender()) != s.to.User {
		e.pending = false
		r.hub.cfg.Metrics.Delivered.Observe(max(0, now.Sub(time.UnixMilli(e.event.GetTimeMs())).Seconds()))
	}
}

// sweep does the periodic work of the room.
func (r *Room) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.filled = nil
	if r.awaiting {
		r.retryLocked(now)
	}
	r.restLocked(now)
}

// retryLocked sends unacknowledged events again, with exponential backoff and jitter, and closes links whose clients never
// acknowledge. It is called only if the room has sent something since everything was acknowledged.
func (r *Room) retryLocked(now time.Time) {
	awaiting := false
	cfg := &r.hub.cfg
	for _, s := range r.subscriptions {
		if s.acked >= s.sent {
			continue
		}
		awaiting = true
		if s.followed != nil {
			s.followed.AbandonBefore(now.Add(-flight.FollowFor), "not acknowledged for too long")
		}
		if s.behind || s.retryAt == 0 || now.UnixNano() < s.retryAt {
			continue
		}
		if int(s.tries) >= cfg.AckTries {
			s.to.Sender.Close(errcode.CloseNoAck, "events stayed unacknowledged")
			continue
		}
		s.tries++
		backoff := cfg.AckTimeout << s.tries
		s.retryAt = now.Add(backoff/2 + rand.N(backoff/2+1)).UnixNano()
		cfg.Metrics.Retries.Inc()
		cfg.Recorder.Subscription(gatewayv1.StepKind_STEP_KIND_RETRIED, now, r.key, s.to.Number, 0, s.acked+1, s.sent)
		s.sent = max(s.acked, s.from-1)
		r.putBehindLocked(s)
	}
	r.awaiting = awaiting
}
