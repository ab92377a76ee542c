package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// putBehind marks a seat as behind and wakes its connection's filler. Callers hold the room's mu.
func (r *room) putBehind(s *seat) {
	if s.behind {
		return
	}
	s.behind = true
	c := s.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = append(c.behind, s)
	if !c.filling {
		c.filling = true
		c.gw.workers.Go(c.fill)
	}
}

// fill brings the seats of one connection up to their rooms' heads, one after the other, never faster than the client
// reads. There is at most one filler for a connection, and none while all its seats are live.
func (c *conn) fill() {
	for {
		c.mu.Lock()
		if len(c.behind) == 0 {
			c.filling, c.behind = false, nil
			c.mu.Unlock()
			return
		}
		s := c.behind[0]
		c.behind = c.behind[1:]
		c.mu.Unlock()
		for wait := 50 * time.Millisecond; c.waitForRoom(); {
			more, err := s.fillOnce()
			c.flush()
			if err != nil {
				if c.isGone() {
					break
				}
				c.gw.readFailed(err, "a client could not be brought up to date yet", "connection", c.id, "conversation", s.room.Load().id)
				pause(c.done, wait/2+rand.N(wait/2+1))
				wait = min(2*wait, 2*time.Second)
				continue
			}
			if !more {
				break
			}
		}
	}
}

// fillOnce queues the next few events to the connection. It reports whether there are more.
func (s *seat) fillOnce() (more bool, err error) {
	r := s.room.Load()
	r.mu.Lock()
	after := s.sent
	switch {
	case s.forked || s.caughtUp(r):
		r.mu.Unlock()
		return false, nil
	case after+1 < s.from:
		// Before the present membership lies what only history can judge.
		r.mu.Unlock()
		return true, s.fillPast(r, after)
	case after+1 >= r.firstRecent():
		s.queue(r, r.recent[after+1-r.firstRecent():])
		r.mu.Unlock()
		return true, nil // the next time says whether there is more
	}
	r.mu.Unlock()
	entries, err := r.load(after)
	if err != nil {
		return true, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.sent == after && r.ready { // else it was put back meanwhile, to send again, or the room begins anew
		s.queue(r, entries)
	}
	return true, nil
}

// caughtUp makes the seat live, or ends it, when it has got everything that is for it. A room that begins anew has no events,
// and puts its seats behind again afterwards. Callers hold the room's mu.
func (s *seat) caughtUp(r *room) bool {
	if s.until != 0 && s.sent >= s.until {
		s.followed.Abandon("the membership ended")
		if i := slices.Index(r.seats, s); i >= 0 {
			r.seats = slices.Delete(r.seats, i, i+1)
			s.conn.detached(s, r.id)
		}
		return true
	}
	if s.sent < r.head {
		return false
	}
	s.behind = false
	return true
}

// elsewhere reports whether the client has another event at its top than the log. entries follow what was sent. Callers hold
// the room's mu.
func (s *seat) elsewhere(entries []*entry) bool {
	switch first := entries[0].seq(); {
	case s.topHash == 0:
		return false
	case s.top+1 == first:
		return prefix(entries[0].event.GetPrevHash()) != s.topHash
	case s.top >= first && s.top-first < uint64(len(entries)):
		return prefix(entries[s.top-first].event.GetHash()) != s.topHash
	default:
		return false
	}
}

// queue sends one message's worth of entries that follow what was sent. Callers hold the room's mu.
func (s *seat) queue(r *room, entries []*entry) {
	if s.elsewhere(entries) {
		r.fork(s)
		return
	}
	last := r.head
	if s.until != 0 {
		last = min(last, s.until)
	}
	size, n := 0, 0
	for _, e := range entries {
		if e.event.GetSeq() > last || n == maxMessageEvents || (n > 0 && size+e.size > maxMessageBytes/2) {
			break
		}
		size += e.size
		n++
		// The room may have taken this event before the seat was there: then nobody has told the seat.
		if e.left != "" && e.event.GetSeq() >= s.from && e.left == s.conn.user.id {
			if s.until == 0 {
				s.until = e.event.GetSeq()
			}
			break
		}
	}
	if n == 0 {
		return
	}
	now, gw := time.Now(), s.conn.gw
	followed := s.follow(entries[:n], now)
	var mark uint32
	messages(s.conn.events, entries[:n], func(message []byte) {
		mark, _ = s.conn.enqueueEvents(message, followed)
		followed = nil // all in the first message: they are few, and the rest follows at once
	})
	s.give(entries[n-1].seq(), entries[n-1].event.GetHash())
	r.awaiting = true
	if mark != 0 {
		gw.recorder.Subscription(gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, now, r.key, s.conn.number, mark, entries[0].seq(), s.sent)
	}
	gw.metrics.Deliveries.Add(float64(n))
	gw.metrics.FramesOut.Add(float64(n))
	gw.metrics.Filled.Add(float64(n))
	if s.retryAt == 0 {
		s.retryAt = now.Add(gw.cfg.AckTimeout).UnixNano()
	}
}

// fillPast queues events of earlier memberships, and says which stretches the user may not see.
func (s *seat) fillPast(r *room, after uint64) error {
	r.mu.Lock()
	begin, hash := after, uint64(0)
	if s.top == after && after > 0 {
		hash = s.topHash
	}
	if hash != 0 {
		begin-- // the event that the client has is read as well, for its hash
	}
	r.mu.Unlock()
	page, err := r.readPage(metrics.ReadPast, &historyv1.ReadRequest{ConversationId: r.id, Viewer: s.conn.user.id, After: begin, Limit: maxMessageEvents})
	if err == nil {
		err = checkRising(r.id, page, begin)
	}
	if err != nil {
		return err
	}
	differs := hash != 0 && takePosition(page, after, hash)
	trimPage(page, s.conn.pageBytes())
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.sent != after || s.forked || !r.ready {
		return nil
	}
	if differs {
		r.fork(s)
		return nil
	}
	stop := s.from - 1
	last := lastOf(page, stop)
	if last <= after {
		return &holeError{r.id, after + 1}
	}
	s.conn.queuePast(r.id, r.key, page, stop)
	s.give(last, hashIn(page, last))
	return nil
}

// hashIn is the hash of an event of a page; nil when the page does not have it.
func hashIn(page *historyv1.ReadResponse, seq uint64) []byte {
	for _, event := range slices.Backward(page.GetEvents()) {
		if event.GetSeq() == seq {
			return event.GetHash()
		}
	}
	return nil
}

// pageBytes is how large a page of the past may be at most: large events must not fill the send queue of a client that is not
// slow.
func (c *conn) pageBytes() int {
	if c.events == frame.JSONWithBytes {
		return c.gw.cfg.SendQueueBytes / 8 // each body is in it twice
	}
	return c.gw.cfg.SendQueueBytes / 4
}

// readFailed logs why something could not be read from the store. A hole in a log is worse than an outage: it does not go
// away by itself.
func (g *Gateway) readFailed(err error, message string, args ...any) {
	args = append(args, "error", err)
	if _, missing := errors.AsType[*holeError](err); missing {
		g.metrics.Holes.Inc()
		g.log.Error(message, args...)
		return
	}
	g.log.Warn(message, args...)
}

// queuePast queues a page as its viewer may see it, up to and including stop.
func (c *conn) queuePast(conversationID string, key flight.Key, page *historyv1.ReadResponse, stop uint64) {
	events, hidden := page.GetEvents(), page.GetHidden()
	now, recorder := time.Now(), c.gw.recorder
	for len(events) > 0 || len(hidden) > 0 {
		var message []byte
		var kind gatewayv1.StepKind
		var first, last uint64
		if len(hidden) == 0 || (len(events) > 0 && events[0].GetSeq() < hidden[0].GetFirst()) {
			event := events[0]
			events = events[1:]
			if event.GetSeq() > stop {
				return
			}
			c.gw.metrics.FramesOut.Inc()
			message = wrap(c.events, func(dst []byte) []byte { return frame.AppendEvent(dst, c.events, event, "") })
			kind, first, last = gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, event.GetSeq(), event.GetSeq()
		} else {
			stretch := hidden[0]
			hidden = hidden[1:]
			if stretch.GetFirst() > stop {
				return
			}
			kind, first, last = gatewayv1.StepKind_STEP_KIND_HIDDEN, stretch.GetFirst(), min(stretch.GetLast(), stop)
			message = c.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Hidden{Hidden: &clientv1.Hidden{
				ConversationId: conversationID, First: first, Last: last,
			}}})
		}
		if mark, _ := c.enqueueEvents(message, nil); mark != 0 {
			recorder.Subscription(kind, now, key, c.number, mark, first, last)
		}
	}
}

// fillFormer sends a client what it has not got of conversations that its user left or was removed from meanwhile, one
// after the other, and tells it of those that it cannot know.
func (c *conn) fillFormer(positions []*clientv1.Position) {
	for _, p := range positions {
		c.fillFormerOne(p)
	}
}

func (c *conn) fillFormerOne(p *clientv1.Position) {
	conversationID, after, hash := p.GetConversationId(), p.GetSeq(), prefix(p.GetHash())
	for wait := 50 * time.Millisecond; c.waitForRoom(); {
		begin := after
		if hash != 0 && after > 0 {
			begin-- // the event that the client has is read as well, for its hash
		}
		page, err := c.readFormer(conversationID, begin)
		if err == nil && !page.GetMember() {
			err = checkRising(conversationID, page, begin)
		}
		switch {
		case isNotFound(err):
			c.endFormer(conversationID, 0)
			return
		case err != nil && c.isGone():
			return
		case err != nil:
			c.gw.readFailed(err, "a client could not be told of a former conversation yet", "connection", c.id, "conversation", conversationID)
			pause(c.done, wait/2+rand.N(wait/2+1))
			wait = min(2*wait, 2*time.Second)
			continue
		case page.GetMember():
			c.join(conversationID) // a member again
			return
		}
		if after > page.GetHead() || (begin < after && takePosition(page, after, hash)) {
			c.forked(nil, conversationID, page.GetHead(), after)
			return
		}
		hash = 0 // it is the client's own position that is judged, once
		trimPage(page, c.pageBytes())
		c.queuePast(conversationID, c.gw.recorder.KeyOf(conversationID), page, ^uint64(0))
		after = max(after, lastOf(page, ^uint64(0)))
		if !page.GetMore() {
			c.endFormer(conversationID, page.GetHead())
			return
		}
		c.flush()
	}
}

// endFormer tells the client that nothing more comes, unless the user has become a member again meanwhile.
func (c *conn) endFormer(conversationID string, last uint64) {
	c.mu.Lock()
	_, seated := c.seats[conversationID]
	c.mu.Unlock()
	if !seated {
		c.enqueue(c.encodeDetached(conversationID, last))
	}
	c.flush()
}

// readFormer takes its turn for the reading alone: a client that is slow to take what was read must hold up nobody.
func (c *conn) readFormer(conversationID string, after uint64) (*historyv1.ReadResponse, error) {
	if !c.gw.takeTurn(c) {
		return nil, errClosing
	}
	defer func() { <-c.gw.turns }()
	ctx, cancel := context.WithTimeout(c.gw.ctx, c.gw.cfg.HistoryTimeout)
	defer cancel()
	c.gw.metrics.Reads[metrics.ReadPast].Inc()
	return c.gw.history.Read(ctx, &historyv1.ReadRequest{ConversationId: conversationID, Viewer: c.user.id, After: after, Limit: maxMessageEvents})
}

// acknowledged notes how far the client is. It reports false for a seq that does not exist.
func (s *seat) acknowledged(delivered, read uint64, now time.Time, timeout time.Duration) bool {
	r := s.room.Load()
	if r == nil {
		return true // the seat is being taken
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// The list of conversations may be ahead of what came live. A room that is not ready does not know how far its log
	// reaches: then the owner of the conversation is left to judge, and nothing is noted here.
	if max(delivered, read) > max(r.head, r.seen, s.told) {
		return !r.ready
	}
	s.read = max(s.read, read)
	if delivered > s.acked {
		r.hub.gw.recorder.Subscription(gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, now, r.key, s.conn.number, 0, s.acked+1, delivered)
		r.delivered(s, delivered, now)
		if s.followed != nil {
			s.followed.Acknowledge(delivered)
		}
		s.acked, s.tries, s.retryAt = delivered, 0, 0
		if s.acked < s.sent {
			s.retryAt = now.Add(timeout).UnixNano()
		}
	}
	return true
}

// delivered measures how long it took until somebody other than its sender had an event, for events that somebody was sent
// at once. Callers hold mu.
func (r *room) delivered(s *seat, seq uint64, now time.Time) {
	if seq > r.head || seq < r.firstRecent() {
		return
	}
	e := r.recent[seq-r.firstRecent()]
	if e.pending && e.event.GetSender() != s.conn.user.id {
		e.pending = false
		r.hub.gw.metrics.Delivered.Observe(max(0, now.Sub(time.UnixMilli(e.event.GetTimeMs())).Seconds()))
	}
}

// retry sends what stayed unacknowledged again, with exponential backoff and jitter, and closes connections that do not
// react at all. It costs a look at rooms in which something was sent since everything was acknowledged.
func (r *room) retry(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.awaiting {
		return
	}
	awaiting := false
	cfg := &r.hub.gw.cfg
	for _, s := range r.seats {
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
		if s.tries >= cfg.AckTries {
			s.conn.close(errcode.CloseNoAck, "events stayed unacknowledged")
			continue
		}
		s.tries++
		backoff := cfg.AckTimeout << s.tries
		s.retryAt = now.Add(backoff/2 + rand.N(backoff/2+1)).UnixNano()
		r.hub.gw.metrics.Retries.Inc()
		r.hub.gw.recorder.Subscription(gatewayv1.StepKind_STEP_KIND_RETRIED, now, r.key, s.conn.number, 0, s.acked+1, s.sent)
		s.sent = max(s.acked, s.from-1)
		r.putBehind(s)
	}
	r.awaiting = awaiting
}

// standing lists, for a heartbeat, where conversations stand that moved since the last one. It also passes the client's
// acknowledgements on once more where they moved: the first time they may have been lost.
func (c *conn) standing() []*clientv1.Position {
	c.mu.Lock()
	seats := make([]*seat, 0, len(c.seats))
	for _, s := range c.seats {
		seats = append(seats, s)
	}
	c.mu.Unlock()
	var heads []*clientv1.Position
	for _, s := range seats {
		r := s.room.Load()
		if r == nil {
			continue
		}
		r.mu.Lock()
		if passed := s.acked + s.read; passed > s.passed {
			s.passed = passed
			c.gw.acks.add(r.id, c.user.id, s.acked, s.read)
		}
		// A seat that is behind is told when it has caught up: until then the client would ask for what is on its way.
		if r.ready && !s.behind && r.head > s.told {
			s.told = r.head
			heads = append(heads, &clientv1.Position{ConversationId: r.id, Seq: r.head})
		}
		r.mu.Unlock()
	}
	return heads
}
