package room

import (
	"errors"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// putBehindLocked marks a subscription as behind and has its session fill it.
func (r *Room) putBehindLocked(s *Subscription) {
	if s.behind {
		return
	}
	s.behind = true
	s.to.Subscriber.Behind(s)
}

// ConversationID returns the id of the room's conversation.
func (s *Subscription) ConversationID() ids.Conversation { return s.room.Load().id }

// FillOnce queues the next few events of a subscription that is behind, and reports whether there are more. The caller flushes
// the link, and calls it for one subscription of a link at a time. The error says why history could not be read now.
func (s *Subscription) FillOnce() (more bool, err error) {
	r := s.room.Load()
	r.mu.Lock()
	after := s.sent
	switch {
	case s.forked || r.caughtUpLocked(s):
		r.mu.Unlock()
		return false, nil
	case after+1 < s.from:
		// The part before the present membership can be read only from history.
		r.mu.Unlock()
		return true, r.fillPast(s, after)
	case after+1 >= r.firstRecentLocked():
		err := r.queueLocked(s, r.recent[after+1-r.firstRecentLocked():])
		if err != nil {
			r.dropLocked(len(r.recent)) // the events in memory have a hole: discard them, so that the next call reads history
		}
		r.mu.Unlock()
		return true, err // the next call reports whether there are more events
	}
	r.mu.Unlock()
	entries, err := r.load(after, s.to.User)
	if err != nil && !errors.Is(err, errUnseen) {
		return true, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		// The store listed this membership, but now has another log, in which the user was not a member at that time.
		if s.sent == after && r.ready {
			r.forkLocked(s)
		}
		return true, nil
	}
	if s.sent == after && r.ready { // otherwise the subscription was put back meanwhile to send events again, or the room is being reloaded
		err = r.queueLocked(s, entries)
	}
	return true, err
}

// caughtUpLocked makes the subscription live, or ends it, when it has received all its events. A room that is being reloaded has
// no events, and marks its subscriptions as behind again afterwards.
func (r *Room) caughtUpLocked(s *Subscription) bool {
	if s.until != 0 && s.sent >= s.until {
		if s.index >= 0 {
			r.endLocked(s)
		} else {
			s.abandon("the membership ended")
		}
		return true
	}
	if s.sent < r.head {
		return false
	}
	s.behind = false
	return true
}

// queueLocked sends the first entries, as many as fit into one message. They must follow the last event that was sent. If
// an event is missing, queueLocked sends nothing and returns a *page.HoleError.
func (r *Room) queueLocked(s *Subscription, entries []*entry) error {
	if s.isElsewhere(entries) {
		r.forkLocked(s)
		return nil
	}
	last := r.head
	if s.until != 0 {
		last = min(last, s.until)
	}
	size, n := 0, 0
	for i, e := range entries {
		if e.seq() > last || n == maxMessageEvents || (n > 0 && size+e.size > maxMessageBytes/2) {
			break
		}
		if next := s.sent + 1 + ids.Seq(i); e.seq() != next {
			return &page.HoleError{ConversationID: r.id, Seq: next}
		}
		size += e.size
		n++
		// The room may have taken this event before the subscription was added: then the subscription was not notified.
		if e.left != "" && e.seq() >= s.from && e.left == s.to.User {
			// A notification of a later removal ended a later membership.
			if s.until == 0 || e.seq() < s.until {
				s.until = e.seq()
			}
			break
		}
	}
	if n == 0 {
		return nil
	}
	now, cfg := time.Now(), &r.hub.cfg
	followed := s.follow(r, entries[:n], now)
	var mark uint32
	if r.filled == nil {
		r.filled = &filledPage{}
	}
	for _, message := range r.filled.messagesOf(s.to.Events, entries[:n]) {
		mark, _ = s.to.Sender.QueueEvents(message, followed)
		followed = nil // the first message carries all followed deliveries: there are few, and the other messages follow at once
	}
	s.setSent(entries[n-1].seq(), entries[n-1].event.GetHash())
	r.awaiting = true
	r.usedLocked(now)
	if mark != 0 {
		cfg.Recorder.Subscription(gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, now, r.key, s.to.Number, mark, entries[0].seq(), s.sent)
	}
	cfg.Metrics.Deliveries.Add(float64(n))
	cfg.Metrics.FramesOut.Add(float64(n))
	cfg.Metrics.Filled.Add(float64(n))
	if s.retryAt == 0 {
		s.retryAt = now.Add(cfg.AckTimeout).UnixNano()
	}
	return nil
}

// fillPast queues events of earlier memberships, and reports the stretches that the user may not see.
func (r *Room) fillPast(s *Subscription, after ids.Seq) error {
	r.mu.Lock()
	begin, hash := after, uint64(0)
	if s.top == after && after > 0 {
		hash = s.topHash
	}
	if hash != 0 {
		begin-- // the client's last event is read as well, to compare its hash
	}
	r.mu.Unlock()
	read, err := r.hub.read(metrics.ReadPast, &historyv1.ReadRequest{ConversationId: string(r.id), Viewer: string(s.to.User), After: uint64(begin), Limit: maxMessageEvents})
	if err == nil {
		err = page.CheckRising(r.id, read, begin)
	}
	if err != nil {
		return err
	}
	differs := hash != 0 && page.TakePosition(read, after, hash)
	page.Trim(read, r.hub.PageBytes(s.to.Events))
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.sent != after || s.forked || !r.ready {
		return nil
	}
	if differs {
		r.forkLocked(s)
		return nil
	}
	last, err := r.hub.queuePast(s.to, r.id, r.key, read, after, s.from-1)
	if last > after {
		s.setSent(last, page.HashIn(read, last))
	} else if err == nil {
		err = &page.HoleError{ConversationID: r.id, Seq: after + 1}
	}
	return err
}

// PageBytes is the maximum size of a page of history: large events must not fill the send queue of a client that is not
// slow.
func (h *Hub) PageBytes(encoding wire.Encoding) int {
	if encoding.Codec() == frame.JSONWithBytes {
		return h.cfg.SendQueueBytes / 8 // a page contains each body twice
	}
	return h.cfg.SendQueueBytes / 4
}

// queuePast queues the events of a page after a seq up to stop that the viewer may see. It returns the last seq that the
// client then has. If an event is missing, it queues nothing after the hole and returns a *page.HoleError.
func (h *Hub) queuePast(
	to *Listener, conversationID ids.Conversation, key flight.Key, read *historyv1.ReadResponse, after, stop ids.Seq,
) (last ids.Seq, err error) {
	events, hidden := read.GetEvents(), read.GetHidden()
	now := time.Now()
	for last = after; last < stop && (len(events) > 0 || len(hidden) > 0); {
		var message []byte
		kind, first := gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, last+1
		switch {
		case len(hidden) > 0 && ids.Seq(hidden[0].GetFirst()) <= first:
			kind, last = gatewayv1.StepKind_STEP_KIND_HIDDEN, min(ids.Seq(hidden[0].GetLast()), stop)
			hidden = hidden[1:]
			message = to.Answers.Frame(hiddenFrame(conversationID, first, last))
		case len(events) > 0 && ids.Seq(events[0].GetSeq()) == first:
			event := events[0]
			last, events = first, events[1:]
			message = to.Events.Message(func(dst []byte) []byte { return frame.AppendEvent(dst, to.Events.Codec(), event, "") })
		default:
			return last, &page.HoleError{ConversationID: conversationID, Seq: first}
		}
		h.cfg.Metrics.FramesOut.Inc()
		if mark, _ := to.Sender.QueueEvents(message, nil); mark != 0 {
			h.cfg.Recorder.Subscription(kind, now, key, to.Number, mark, first, last)
		}
	}
	return last, nil
}

func hiddenFrame(conversationID ids.Conversation, first, last ids.Seq) *clientv1.ServerFrame {
	return &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{
		ConversationId: string(conversationID), First: uint64(first), Last: uint64(last),
	}}}
}
