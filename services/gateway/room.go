package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/singleflight"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// room is one conversation that somebody here listens to. It is itself a reader of the log: it takes events strictly by
// seq, so membership is right at every event, and nobody gets an event of a time when they were no member.
//
//	opening ──head known──▶ ready ◀──▶ catching up (an event is missing: history is read until it is found)
//	   ▲                      │
//	   └────── reload ────────┘ the store has another log than the one in memory: see fork.go
type room struct {
	hub   *hub
	id    string
	key   flight.Key         // stands for id in the recorder
	sub   *nats.Subscription // guarded by hub.mu
	loads singleflight.Group // of pages, by the seq they begin after

	mu       sync.Mutex
	ready    bool
	closed   bool // out of the hub: nothing is kept any more
	catching bool
	head     uint64 // the newest event taken
	headHash []byte // of that event; empty when it is not known
	seen     uint64 // the newest seq heard of; above head while something is missing
	missed   uint64 // the newest seq that was noted as missing
	seats    []*seat
	recent   []*entry  // contiguous, the last one is head; may be empty
	bytes    int       // of recent
	erasedAt uint64    // the newest event that erased content of those before it; those are not kept
	receipt  int64     // version of the newest receipt
	awaiting bool      // some seat may have unacknowledged events
	doubtAt  time.Time // from when on the store may be asked again whether the room is on its log
}

// entry is an event with its encodings, each made once when first needed. Guarded by the room's mu.
type entry struct {
	event *conversationv1.Event
	// joined are the users whose membership it begins, left the one whose membership it ends; both mostly empty.
	joined []conversation.UserID
	left   conversation.UserID
	trace  *flight.EventTrace // nil when it is not sampled
	size   int
	wire   [frame.NumCodecs][]byte // the frame, by codec, without a WebSocket header
	// pending: somebody other than its sender was sent it at once, and nobody has acknowledged it yet.
	pending bool
}

func newEntry(event *conversationv1.Event) *entry {
	e := &entry{event: event, size: event.SizeVT()}
	e.joined, e.left = conversation.Memberships(event)
	return e
}

func newEntries(events []*conversationv1.Event) []*entry {
	entries := make([]*entry, len(events))
	for i, event := range events {
		entries[i] = newEntry(event)
	}
	return entries
}

func (e *entry) seq() uint64 { return e.event.GetSeq() }

// weight is about what the entry takes in memory with its encodings.
func (e *entry) weight() int { return 4*e.size + 256 }

func (e *entry) frame(codec frame.Codec) []byte {
	if e.wire[codec] == nil {
		parent := ""
		if e.trace != nil {
			parent = e.trace.Parent
		}
		e.wire[codec] = frame.AppendEvent(make([]byte, 0, 2*e.size+128), codec, e.event, parent)
	}
	return e.wire[codec]
}

// seat is a connection's place in a room. Guarded by the room's mu.
type seat struct {
	conn  *conn
	room  atomic.Pointer[room]
	from  uint64 // first seq of the present membership
	until uint64 // last seq of the membership when it has ended; 0 while it lasts
	sent  uint64 // every event up to this one was queued to the connection
	// top is the highest seq that the client has or was sent, topHash the beginning of the hash of that event; 0 when it is not
	// known. sent is lower while events are sent again.
	top, topHash uint64
	forked       bool // given up: the client is on another branch of the log
	acked        uint64
	read         uint64
	passed       uint64 // acked and read, added up, when they were last passed on with a heartbeat
	told         uint64 // the head that the last heartbeat told
	behind       bool   // the filler brings it up to the head
	tries        int
	// retryAt is when the events after acked are sent again, unix ns; 0 when there are none.
	retryAt int64
	// followed are deliveries of sampled events on their way.
	followed flight.Followed
}

// give notes that the client was sent everything up to an event, whose hash may be empty when it is not known. Callers hold the
// room's mu.
func (s *seat) give(seq uint64, hash []byte) {
	s.sent = seq
	if seq >= s.top {
		s.top, s.topHash = seq, prefix(hash)
	}
}

func (s *seat) standing(r *room) *gatewayv1.Standing {
	return &gatewayv1.Standing{ConversationId: r.id, Head: r.head, Sent: s.sent, Acknowledged: s.acked, Retries: uint32(s.tries)}
}

// Bounds of one WebSocket message with several events.
const (
	maxMessageBytes  = 48 << 10
	maxMessageEvents = 64
)

// messages joins frames into WebSocket messages and hands each to queue.
func messages(codec frame.Codec, entries []*entry, queue func([]byte)) {
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && n < maxMessageEvents && (n == 0 || size+len(entries[n].frame(codec)) <= maxMessageBytes) {
			size += len(entries[n].frame(codec))
			n++
		}
		queue(wrap(codec, func(dst []byte) []byte {
			for _, e := range entries[:n] {
				dst = append(dst, e.frame(codec)...)
			}
			return dst
		}))
		entries = entries[n:]
	}
}

// live takes events from live.<conversation>. Connections that got something are added to dirty, for flushing.
func (r *room) live(message *brokerv1.Live, entries []*entry, dirty *[]*conn) {
	if len(entries) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := entries[len(entries)-1].seq()
	if r.ready && r.differs(entries) {
		r.reload()
		return
	}
	r.seen = max(r.seen, last)
	known := 0
	for known < len(entries) && entries[known].seq() <= r.head {
		known++
	}
	if known > 0 {
		r.hub.gw.metrics.Repeats.Add(float64(known))
	}
	if entries = entries[known:]; len(entries) == 0 {
		if r.hashAt(last) == nil {
			r.doubt() // older than what is in memory: published again after a takeover, or of a log that went back
		}
		return
	}
	first, recorder := entries[0].seq(), r.hub.gw.recorder
	recorder.Room(gatewayv1.StepKind_STEP_KIND_ROUTED, time.Now(), r.key, first, last)
	if message.GetWorker() != "" {
		recorder.Committed(r.key, message.GetWorker(), message.GetCommittedNs(), first, last)
	}
	switch {
	case !r.ready:
	case first != r.head+1:
		r.hub.gw.metrics.Gaps.Inc()
		r.catchUpLocked()
	case !chained(r.headHash, entries):
		r.reload()
	default:
		r.advance(entries, dirty)
	}
}

// advance takes events that follow the head without a gap. An event that ends a membership closes a stretch: those after it are not for
// that user.
func (r *room) advance(entries []*entry, dirty *[]*conn) {
	begin := 0
	for i, e := range entries {
		if e.left == "" && i+1 < len(entries) {
			continue
		}
		r.fanOut(entries[begin:i+1], dirty)
		begin = i + 1
		if e.left != "" {
			r.detach(e.left, e.seq(), dirty)
		}
	}
	for _, e := range entries {
		for _, joiner := range e.joined {
			r.hub.gw.joined(joiner, r.id)
		}
	}
}

func (r *room) fanOut(entries []*entry, dirty *[]*conn) {
	first, last := entries[0].seq(), entries[len(entries)-1].seq()
	hash := entries[len(entries)-1].event.GetHash()
	r.remember(entries)
	r.head, r.headHash, r.awaiting = last, hash, true
	size, sampled := 0, false
	for _, e := range entries {
		size += e.size
		sampled = sampled || e.trace != nil
	}
	// A long stretch, read after an outage, would fill the queues of connections that are not slow: fillers take their time.
	large := size > r.hub.gw.cfg.SendQueueBytes/4
	var wire [frame.NumCodecs][][]byte
	var elsewhere []*seat // whose clients are on another branch
	now, newest := time.Now(), entries[len(entries)-1]
	retryAt := now.Add(r.hub.gw.cfg.AckTimeout).UnixNano()
	receivers := 0
	for _, s := range r.seats {
		switch {
		case s.behind || s.sent >= last:
			if s.top == last && r.isForked(s) { // it was ahead of the room
				elsewhere = append(elsewhere, s)
			}
			continue
		case s.sent+1 != first || s.top >= first || large:
			r.putBehind(s)
			continue
		}
		codec := s.conn.events
		if wire[codec] == nil {
			messages(codec, entries, func(message []byte) { wire[codec] = append(wire[codec], message) })
		}
		var followed []*flight.Delivery
		if sampled {
			followed = s.follow(entries, now)
		}
		var mark uint32
		for i, message := range wire[codec] {
			var toFollow []*flight.Delivery
			if i == len(wire[codec])-1 {
				toFollow = followed
			}
			queued, idle := s.conn.enqueueEvents(message, toFollow)
			if mark = queued; idle {
				*dirty = append(*dirty, s.conn)
			}
		}
		s.give(last, hash)
		if mark != 0 {
			r.hub.gw.recorder.Subscription(gatewayv1.StepKind_STEP_KIND_QUEUED, now, r.key, s.conn.number, mark, first, last)
		}
		if s.retryAt == 0 {
			s.retryAt = retryAt
		}
		newest.pending = newest.pending || s.conn.user.id != newest.event.GetSender()
		receivers++
	}
	for _, s := range elsewhere {
		r.fork(s)
	}
	if sampled {
		for _, e := range entries {
			if e.trace != nil {
				e.trace.End(receivers)
			}
		}
	}
	r.hub.gw.metrics.Deliveries.Add(float64(receivers * len(entries)))
	r.hub.gw.metrics.FramesOut.Add(float64(receivers * len(entries)))
}

// remember keeps recent events within the room's share of the memory for them.
func (r *room) remember(entries []*entry) {
	if r.closed {
		return
	}
	r.recent = append(r.recent, entries...)
	for _, e := range entries {
		r.grow(e.weight())
	}
	for i, e := range slices.Backward(entries) {
		if event := e.event; conversation.Erases(event.GetKind()) {
			// Whoever still needs the events before it gets them from history, as they are now.
			r.erasedAt = event.GetSeq()
			r.drop(len(r.recent) - len(entries) + i)
			break
		}
	}
	r.trim()
}

// drop forgets the oldest recent events.
func (r *room) drop(n int) {
	for _, e := range r.recent[:n] {
		r.grow(-e.weight())
	}
	clear(r.recent[:n]) // the array goes when append outgrows it
	r.recent = r.recent[n:]
}

func (r *room) grow(size int) {
	r.bytes += size
	r.hub.recentBytes.Add(int64(size))
}

const (
	maxRecentEvents = 1024
	minRecentEvents = 16
)

func (r *room) trim() {
	for len(r.recent) > maxRecentEvents || (len(r.recent) > minRecentEvents && r.hub.recentBytes.Load() > int64(r.hub.gw.cfg.RecentBytes)) {
		r.drop(1)
	}
}

// detach ends the membership of a user at seq. Those of their seats that are behind go on until they have reached it.
func (r *room) detach(userID string, seq uint64, dirty *[]*conn) {
	kept := r.seats[:0]
	for _, s := range r.seats {
		if s.conn.user.id != userID || seq < s.from {
			kept = append(kept, s)
			continue
		}
		if s.until == 0 {
			s.until = seq // a later one ends a membership that is not this seat's
		}
		if s.behind {
			kept = append(kept, s)
			continue
		}
		s.followed.Abandon("the membership ended")
		s.conn.detached(s, r.id)
		*dirty = append(*dirty, s.conn)
	}
	clear(r.seats[len(kept):])
	r.seats = kept
}

// detached tells the client that nothing more comes of a conversation, and forgets the seat. The user may have become a
// member again while the seat was still there, so that the notice of it was taken for an old one: history is asked.
func (c *conn) detached(s *seat, conversationID string) {
	c.enqueue(c.encodeDetached(conversationID, s.until))
	c.mu.Lock()
	if c.seats[conversationID] == s {
		delete(c.seats, conversationID)
	}
	c.mu.Unlock()
	c.join(conversationID)
}

func (c *conn) encodeDetached(conversationID string, last uint64) []byte {
	return c.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{
		ConversationId: conversationID, Last: last,
	}}})
}

// takeReceipt pushes a receipt to everybody in the room, unless a newer one was pushed already.
func (r *room) takeReceipt(receipt *conversationv1.Receipt, dirty *[]*conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if receipt.GetVersion() <= r.receipt {
		return
	}
	r.receipt = receipt.GetVersion()
	var wire [frame.NumCodecs][]byte
	receivers := 0
	for _, s := range r.seats {
		if s.conn.noReceipts || s.until != 0 {
			continue
		}
		receivers++
		codec := s.conn.codec
		if wire[codec] == nil {
			wire[codec] = wrap(codec, func(dst []byte) []byte { return frame.AppendReceipt(dst, codec, receipt) })
		}
		if s.conn.enqueue(wire[codec]) {
			*dirty = append(*dirty, s.conn)
		}
	}
	r.hub.gw.metrics.FramesOut.Add(float64(receivers))
}

// follow begins to follow the sampled events among entries to the seat's connection. Callers hold the room's mu.
func (s *seat) follow(entries []*entry, now time.Time) (followed []*flight.Delivery) {
	for _, e := range entries {
		if d := s.conn.gw.trace.Follow(e.trace, e.event.GetConversationId(), e.seq(), s.conn.id, now); d != nil {
			followed = append(followed, d)
		}
	}
	s.followed = append(s.followed, followed...)
	return followed
}

// open makes the room ready at a head that was read after the subscription took effect, so nothing can fall between. The head
// is nil when the conversation does not exist (any more).
func (r *room) open(head *historyv1.Head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready {
		return
	}
	r.ready, r.head, r.headHash = true, head.GetHead(), head.GetHeadHash()
	r.placeAll()
	if r.seen > r.head {
		r.catchUpLocked()
	}
}

// catchUpLocked reads what is missing from history, on a goroutine of its own.
func (r *room) catchUpLocked() {
	if first := max(r.head, r.missed) + 1; first <= r.seen {
		r.hub.gw.recorder.Room(gatewayv1.StepKind_STEP_KIND_MISSED, time.Now(), r.key, first, r.seen)
		r.missed = r.seen
	}
	if r.catching {
		return
	}
	r.catching = true
	r.hub.gw.workers.Go(r.catchUp)
}

func (r *room) catchUp() {
	gw := r.hub.gw
	for wait := 50 * time.Millisecond; gw.ctx.Err() == nil; {
		r.mu.Lock()
		after, heard := r.head, r.seen
		r.mu.Unlock()
		page, err := r.readPage(metrics.ReadGap, &historyv1.ReadRequest{ConversationId: r.id, After: after, Limit: 500})
		if err == nil {
			err = checkRising(r.id, page, after)
		}
		if err != nil {
			gw.readFailed(err, "a gap could not be filled yet", "conversation", r.id, "after", after)
			pause(gw.ctx.Done(), wait/2+rand.N(wait/2+1))
			wait = min(2*wait, 2*time.Second)
			if r.empty() {
				break
			}
			continue
		}
		var dirty []*conn
		r.mu.Lock()
		r.takePage(newEntries(page.GetEvents()), &dirty)
		r.miss(after, heard, page.GetHead())
		done := !r.ready || r.head >= r.seen || len(r.seats) == 0
		if done {
			r.catching = false
		}
		r.mu.Unlock()
		flushAll(dirty)
		if done {
			return
		}
		if !page.GetMore() {
			pause(gw.ctx.Done(), wait/2+rand.N(wait/2+1))
			wait = min(2*wait, 2*time.Second)
		}
	}
	r.mu.Lock()
	r.catching = false
	r.mu.Unlock()
}

// miss holds what the room had taken and heard of, before the store was asked, to the head that the store has. An event is
// heard of only after it was committed, so what the store does not have is gone. Callers hold mu.
func (r *room) miss(taken, heard, head uint64) {
	switch {
	case !r.ready || r.head < taken: // it began anew meanwhile
	case head < taken:
		r.reload()
	case head < heard && head == r.head:
		r.seen = r.head
		r.placeAll()
	}
}

// takePage takes what a page has beyond the head. Callers hold mu.
func (r *room) takePage(entries []*entry, dirty *[]*conn) {
	for len(entries) > 0 && entries[0].seq() <= r.head {
		entries = entries[1:]
	}
	if !r.ready || len(entries) == 0 || entries[0].seq() != r.head+1 {
		return
	}
	if !chained(r.headHash, entries) {
		r.reload()
		return
	}
	first, last := entries[0].seq(), entries[len(entries)-1].seq()
	r.hub.gw.metrics.GapEvents.Add(float64(len(entries)))
	r.hub.gw.recorder.Room(gatewayv1.StepKind_STEP_KIND_GAP_FILLED, time.Now(), r.key, first, last)
	r.advance(entries, dirty)
}

func (r *room) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seats) == 0
}

func (r *room) readPage(purpose metrics.ReadPurpose, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	r.hub.gw.metrics.Reads[purpose].Inc()
	ctx, cancel := context.WithTimeout(r.hub.gw.ctx, r.hub.gw.cfg.HistoryTimeout)
	defer cancel()
	return r.hub.gw.history.Read(ctx, request)
}

// errReloaded says that a room had to begin anew while its events were read.
var errReloaded = errors.New("the log of the conversation is not the one that clients were sent")

// load reads the events after a seq for everybody in the room who needs them now, once.
func (r *room) load(after uint64) ([]*entry, error) {
	loaded, err, _ := r.loads.Do(strconv.FormatUint(after, 10), func() (any, error) {
		page, err := r.readPage(metrics.ReadBehind, &historyv1.ReadRequest{ConversationId: r.id, After: after, Limit: 500})
		if err != nil {
			return nil, err
		}
		if err := checkRising(r.id, page, after); err != nil {
			return nil, err
		}
		if len(page.GetEvents()) == 0 {
			return nil, &holeError{r.id, after + 1}
		}
		entries := newEntries(page.GetEvents())
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ready && r.differs(entries) {
			r.reload()
			return nil, errReloaded
		}
		if page.GetHead() >= r.erasedAt { // else they may hold what was erased meanwhile
			r.prepend(entries)
		}
		return entries, nil
	})
	if err != nil {
		return nil, err
	}
	entries, _ := loaded.([]*entry) // nothing else is ever loaded
	return entries, nil
}

// prepend keeps events that come right before the recent ones, so that the next one to return finds them in memory.
func (r *room) prepend(entries []*entry) {
	end := 0
	for end < len(entries) && entries[end].event.GetSeq() < r.firstRecent() {
		end++
	}
	entries = entries[:end]
	if r.closed || !r.ready || end == 0 || entries[end-1].event.GetSeq()+1 != r.firstRecent() || len(r.recent)+end > maxRecentEvents {
		return
	}
	r.recent = append(entries[:end:end], r.recent...)
	for _, e := range entries {
		r.grow(e.weight())
	}
	r.trim()
}

// firstRecent is the seq of the oldest event in memory; head + 1 when there is none.
func (r *room) firstRecent() uint64 {
	return r.head + 1 - uint64(len(r.recent))
}

// pause waits, or returns early when done is closed.
func pause(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
