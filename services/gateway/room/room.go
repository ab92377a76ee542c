package room

import (
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/page"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Room is one conversation with a subscription on this gateway. A gateway has very many, most of them quiet: keep it small. See
// rest.go.
//
//	opening ──head known──▶ ready ◀──▶ catching up (an event is missing: history is read until it is found)
//	   ▲                      │
//	   └────── reload ────────┘ the store has another log than the one in memory: see fork.go
type Room struct {
	hub   *Hub
	id    ids.Conversation
	key   flight.Key         // identifies id in the recorder
	sub   Unsubscriber       // guarded by Hub.mu; nil until the bus has the subscription
	loads singleflight.Group // pages being loaded, by the seq they begin after

	mu            sync.Mutex
	ready         bool
	closed        bool // removed from the hub: the room keeps no events any more
	catching      bool
	awaiting      bool    // some subscription may have unacknowledged events
	encoded       bool    // some recent event may have encodings
	head          ids.Seq // the newest event taken
	headHash      []byte  // hash of that event; empty when it is not known
	seen          ids.Seq // the newest seq known to exist; above head while events are missing
	missed        ids.Seq // the newest seq that was recorded as missing
	subscriptions []*Subscription
	recent        []*entry    // contiguous; the last one is head; may be empty
	bytes         int         // size of recent, in bytes
	filled        *filledPage // freed by the next sweep; may be nil
	usedAt        int64       // when recent events were last sent to a client, Unix ns
	erasedAt      ids.Seq     // the newest event that erased content of earlier events; the earlier events are not kept
	receipt       int64       // version of the newest receipt taken
	doubtAt       int64       // earliest time of the next request to the store that checks whether the room is on the log, Unix ns
}

// takeMessage takes one live message. It adds each sender for which it queued a message to dirty; the caller flushes
// them.
func (r *Room) takeMessage(live *brokerv1.Live, entries []*entry, dirty *[]Sender) {
	r.takeLive(live, entries, dirty)
	if live.GetReceipt() != nil {
		r.takeReceipt(live.GetReceipt(), dirty)
	}
}

// takeLive takes events from live.<conversation>.
func (r *Room) takeLive(message *brokerv1.Live, entries []*entry, dirty *[]Sender) {
	if len(entries) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last := entries[len(entries)-1].seq()
	if r.ready && r.differsLocked(entries) {
		r.reloadLocked()
		return
	}
	r.seen = max(r.seen, last)
	known := 0
	for known < len(entries) && entries[known].seq() <= r.head {
		known++
	}
	if known > 0 {
		r.hub.cfg.Metrics.Repeats.Add(float64(known))
	}
	if entries = entries[known:]; len(entries) == 0 {
		if r.hashAtLocked(last) == nil {
			r.doubtLocked() // older than the events in memory: republished after a takeover, or the store was restored to an older state
		}
		return
	}
	first, recorder := entries[0].seq(), r.hub.cfg.Recorder
	recorder.Room(gatewayv1.StepKind_STEP_KIND_ROUTED, time.Now(), r.key, first, last)
	if message.GetWorker() != "" {
		recorder.Committed(r.key, message.GetWorker(), message.GetCommittedNs(), first, last)
	}
	switch {
	case !r.ready:
	case first != r.head+1:
		r.hub.cfg.Metrics.Gaps.Inc()
		r.catchUpLocked()
	case !chained(r.headHash, entries):
		r.reloadLocked()
	default:
		r.advanceLocked(entries, dirty)
	}
}

// advanceLocked takes events that follow the head without a gap. If an event ends a membership, the events after it are
// not sent to that user.
func (r *Room) advanceLocked(entries []*entry, dirty *[]Sender) {
	if !r.continuesLocked(entries) {
		return
	}
	begin := 0
	for i, e := range entries {
		if e.left == "" && i+1 < len(entries) {
			continue
		}
		r.fanOutLocked(entries[begin:i+1], dirty)
		begin = i + 1
		if e.left != "" {
			r.detachLocked(e.left, e.seq(), dirty)
		}
	}
	for _, e := range entries {
		var committed time.Time
		if e.committedNs > 0 {
			committed = time.Unix(0, e.committedNs)
		}
		for _, joiner := range e.joined {
			r.hub.cfg.Joined(ids.User(joiner), r.id, e.seq(), committed)
		}
	}
}

// continuesLocked is the last check of events before they are pushed: they must follow the head without a hole. Otherwise the
// hole is counted and logged, and the events are read from history.
func (r *Room) continuesLocked(entries []*entry) bool {
	for i, e := range entries {
		if next := r.head + 1 + ids.Seq(i); e.seq() != next {
			r.hub.ReadFailed(&page.HoleError{ConversationID: r.id, Seq: next}, "events about to be pushed do not follow the last one", "conversation", r.id)
			r.seen = max(r.seen, entries[len(entries)-1].seq())
			r.catchUpLocked()
			return false
		}
	}
	return true
}

func (r *Room) fanOutLocked(entries []*entry, dirty *[]Sender) {
	first, last := entries[0].seq(), entries[len(entries)-1].seq()
	hash := entries[len(entries)-1].event.GetHash()
	r.rememberLocked(entries)
	r.head, r.headHash, r.awaiting = last, hash, true
	size, sampled := 0, false
	for _, e := range entries {
		size += e.size
		sampled = sampled || e.trace != nil
	}
	// A long stretch that was read after an outage would fill the queues of clients that are not slow. Therefore it is
	// sent gradually, by filling.
	large := size > r.hub.cfg.SendQueueBytes/4
	var made [wire.NumEncodings][][]byte
	var elsewhere []*Subscription // subscriptions whose clients are on another branch
	now, newest := time.Now(), entries[len(entries)-1]
	r.usedLocked(now)
	retryAt := now.Add(r.hub.cfg.AckTimeout).UnixNano()
	receivers := 0
	for _, s := range r.subscriptions {
		switch {
		case s.behind || s.sent >= last:
			if s.top == last && r.isForkedLocked(s) { // the client was ahead of the room
				elsewhere = append(elsewhere, s)
			}
			continue
		case s.sent+1 != first || s.top >= first || large:
			r.putBehindLocked(s)
			continue
		}
		encoding := s.to.Events
		if made[encoding] == nil {
			messages(encoding, entries, func(message []byte) { made[encoding] = append(made[encoding], message) })
		}
		var followed []*flight.Delivery
		if sampled {
			followed = s.follow(r, entries, now)
		}
		var mark uint32
		for i, message := range made[encoding] {
			var toFollow []*flight.Delivery
			if i == len(made[encoding])-1 {
				toFollow = followed
			}
			queued, idle := s.to.Sender.QueueEvents(message, toFollow)
			if mark = queued; idle {
				*dirty = append(*dirty, s.to.Sender)
			}
		}
		s.setSent(last, hash)
		if mark != 0 {
			r.hub.cfg.Recorder.Subscription(gatewayv1.StepKind_STEP_KIND_QUEUED, now, r.key, s.to.Number, mark, first, last)
		}
		if s.retryAt == 0 {
			s.retryAt = retryAt
		}
		newest.pending = newest.pending || s.to.User != ids.User(newest.event.GetSender())
		receivers++
	}
	for _, s := range elsewhere {
		r.forkLocked(s)
	}
	if sampled {
		for _, e := range entries {
			if e.trace != nil {
				e.trace.End(receivers)
			}
		}
	}
	r.hub.cfg.Metrics.Deliveries.Add(float64(receivers * len(entries)))
	r.hub.cfg.Metrics.FramesOut.Add(float64(receivers * len(entries)))
}

// detachLocked ends the membership of a user at seq. Subscriptions of that user that are behind continue until they reach seq.
func (r *Room) detachLocked(userID ids.User, seq ids.Seq, dirty *[]Sender) {
	r.eachLocked(func(s *Subscription) {
		if s.to.User != userID || seq < s.from {
			return
		}
		if s.until == 0 {
			s.until = seq // a later event would end another membership, not this subscription's
		}
		if s.behind {
			return
		}
		r.endLocked(s)
		*dirty = append(*dirty, s.to.Sender)
	})
}

// endLocked removes a subscription whose client has received all events of its membership.
func (r *Room) endLocked(s *Subscription) {
	s.abandon("the membership ended")
	r.removeLocked(s)
	s.to.Subscriber.Detached(s, r.id, s.until)
}

// takeReceipt pushes a receipt to all clients in the room that want receipts, unless a newer receipt was already pushed.
func (r *Room) takeReceipt(receipt *conversationv1.Receipt, dirty *[]Sender) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if receipt.GetVersion() <= r.receipt {
		return
	}
	r.receipt = receipt.GetVersion()
	var made [wire.NumEncodings][]byte
	receivers := 0
	for _, s := range r.subscriptions {
		if !s.to.Receipts || s.until != 0 {
			continue
		}
		receivers++
		encoding := s.to.Answers
		if made[encoding] == nil {
			made[encoding] = encoding.Message(func(dst []byte) []byte { return frame.AppendReceipt(dst, encoding.Codec(), receipt) })
		}
		if s.to.Sender.Queue(made[encoding]) {
			*dirty = append(*dirty, s.to.Sender)
		}
	}
	r.hub.cfg.Metrics.FramesOut.Add(float64(receivers))
}

// Shown is the state of a room, for operators.
type Shown struct {
	ConversationID ids.Conversation
	Ready          bool
	Head, Seen     ids.Seq
	Catching       bool
	// RecentFrom is the oldest event in memory, 0 when there is none.
	RecentFrom          ids.Seq
	Recent, RecentBytes int
	Subscriptions       []ShownSubscription
	// More is the number of subscriptions that are not listed.
	More int
}

// ShownSubscription is one subscription of a room.
type ShownSubscription struct {
	ConnectionID                   ids.Connection
	User                           ids.User
	From, Until, Sent, Acked, Read ids.Seq
	Behind                         bool
	Tries                          int
}

// Show describes the room with at most limit subscriptions.
func (r *Room) Show(limit int) Shown {
	r.mu.Lock()
	defer r.mu.Unlock()
	shown := Shown{
		ConversationID: r.id, Ready: r.ready, Head: r.head, Seen: r.seen, Catching: r.catching, Recent: len(r.recent), RecentBytes: r.bytes,
	}
	if len(r.recent) > 0 {
		shown.RecentFrom = r.firstRecentLocked()
	}
	for _, s := range r.subscriptions[:min(len(r.subscriptions), limit)] {
		shown.Subscriptions = append(shown.Subscriptions, ShownSubscription{
			ConnectionID: s.to.ConnectionID, User: s.to.User, From: s.from, Until: s.until, Sent: s.sent, Acked: s.acked, Read: s.read,
			Behind: s.behind, Tries: int(s.tries),
		})
	}
	shown.More = len(r.subscriptions) - len(shown.Subscriptions)
	return shown
}
