package room

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// Subscription is a session's place in a room.
//
//	made ──Hub.Enter──▶ live ◀──filled── behind ◀──a gap, a resume, no acknowledgement── live
//	                      └───────┴── Leave, the membership ends, a fork ──▶ out of the room
//
// Its fields are guarded by the room's mu once it is in the room. A gateway has one for each conversation of each client: keep it
// small.
type Subscription struct {
	to     *Listener
	room   atomic.Pointer[Room]
	index  int32   // index in the room's subscriptions; -1 when it is not in the room
	tries  uint8   // number of times that the events after acked were repeated
	forked bool    // removed from the room: the client is on another branch of the log
	behind bool    // being filled up to the head
	from   ids.Seq // first seq of the current membership
	until  ids.Seq // last seq of the membership if it has ended; 0 while it lasts
	sent   ids.Seq // every event up to this one was queued to the link
	// top is the highest seq that the client has or was sent. topHash is the beginning of the hash of that event; 0 when
	// it is not known. sent is lower than top while events are sent again.
	top     ids.Seq
	topHash uint64
	acked   ids.Seq
	read    ids.Seq
	passed  uint64  // sum of acked and read as last forwarded with a heartbeat; before the first heartbeat, as the store has them
	told    ids.Seq // the head that the last heartbeat reported
	// retryAt is the time at which the events after acked are sent again, Unix ns; 0 when no event awaits an
	// acknowledgement.
	retryAt int64
	// followed are the unfinished deliveries of sampled events; nil for none.
	followed *flight.Followed
}

// Subscribe makes a subscription to a conversation whose member the user is. The client is assumed to have every event up
// to base. position is the position that the client reported; nil if it reported none.
func (l *Listener) Subscribe(summary *historyv1.Summary, base ids.Seq, position *clientv1.Position) *Subscription {
	s := &Subscription{}
	l.Init(s, summary, base, position)
	return s
}

// Init is Subscribe for a subscription that exists, but was not used yet. A client with many conversations makes them at once.
func (l *Listener) Init(s *Subscription, summary *historyv1.Summary, base ids.Seq, position *clientv1.Position) {
	s.to, s.index, s.from, s.told = l, -1, ids.Seq(summary.GetJoinedSeq()), ids.Seq(summary.GetHead())
	s.sent, s.acked, s.top = base, base, base
	if ids.Seq(summary.GetCursor().GetDeliveredSeq()) >= base {
		s.passed = uint64(base) // the store knows that the client has everything up to base
	}
	if position.GetSeq() > 0 {
		s.top, s.topHash = ids.Seq(position.GetSeq()), page.HashPrefix(position.GetHash())
	}
}

// setSent records that the client was sent every event up to seq. The hash is empty when it is not known.
func (s *Subscription) setSent(seq ids.Seq, hash []byte) {
	s.sent = seq
	if seq >= s.top {
		s.top, s.topHash = seq, page.HashPrefix(hash)
	}
}

// Standing returns the client's position in the conversation; nil when the subscription was never in a room.
func (s *Subscription) Standing() *gatewayv1.Standing {
	r := s.room.Load()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.standing(r)
}

// Unfinished returns the client's position if the client has not acknowledged every event, else nil.
func (s *Subscription) Unfinished() *gatewayv1.Standing {
	r := s.room.Load()
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.acked >= r.head {
		return nil
	}
	return s.standing(r)
}

func (s *Subscription) standing(r *Room) *gatewayv1.Standing {
	return &gatewayv1.Standing{ConversationId: string(r.id), Head: uint64(r.head), Sent: uint64(s.sent), Acknowledged: uint64(s.acked), Retries: uint32(s.tries)}
}

// Beat is the part of a heartbeat for one subscription.
type Beat struct {
	ConversationID ids.Conversation
	// Acknowledged reports whether Delivered or Read moved since the last heartbeat. The gateway then forwards both
	// again, because their first message may have been lost.
	Acknowledged    bool
	Delivered, Read ids.Seq
	// Head is the newest event if it moved since the last heartbeat, else 0.
	Head ids.Seq
}

// Beat returns the changes since the last call.
func (s *Subscription) Beat() Beat {
	r := s.room.Load()
	if r == nil {
		return Beat{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	beat := Beat{ConversationID: r.id, Delivered: s.acked, Read: s.read}
	if passed := uint64(s.acked + s.read); passed > s.passed {
		s.passed, beat.Acknowledged = passed, true
	}
	// The head of a subscription that is behind is not reported: the client would request events that are already on
	// their way.
	if r.ready && !s.behind && r.head > s.told {
		s.told, beat.Head = r.head, r.head
	}
	return beat
}

// follow starts to follow the deliveries of the sampled events in entries.
func (s *Subscription) follow(r *Room, entries []*entry, now time.Time) (followed []*flight.Delivery) {
	for _, e := range entries {
		if d := r.hub.cfg.Tracer.Follow(e.trace, r.id, e.seq(), s.to.ConnectionID, now); d != nil {
			followed = append(followed, d)
		}
	}
	if len(followed) > 0 {
		if s.followed == nil {
			s.followed = &flight.Followed{}
		}
		*s.followed = append(*s.followed, followed...)
	}
	return followed
}

// abandon ends the unfinished deliveries of sampled events, with a reason.
func (s *Subscription) abandon(reason string) {
	if s.followed != nil {
		s.followed.Abandon(reason)
		s.followed = nil
	}
}

// addLocked puts a subscription into the room.
func (r *Room) addLocked(s *Subscription) {
	s.room.Store(r)
	s.index = int32(len(r.subscriptions))
	r.subscriptions = append(r.subscriptions, s)
}

// removeLocked removes a subscription from the room if it is in it. The last subscription in the list takes its index.
func (r *Room) removeLocked(s *Subscription) {
	if s.index < 0 {
		return
	}
	last := len(r.subscriptions) - 1
	moved := r.subscriptions[last]
	r.subscriptions[s.index], moved.index = moved, s.index
	r.subscriptions[last] = nil
	r.subscriptions = r.subscriptions[:last]
	s.index = -1
}

// eachLocked calls do for every subscription. do may remove the subscription it is called with.
func (r *Room) eachLocked(do func(*Subscription)) {
	for _, s := range slices.Backward(r.subscriptions) {
		do(s)
	}
}
