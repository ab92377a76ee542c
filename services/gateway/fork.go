package gateway

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

// Forks. A database that is restored from a backup, or fails over to a copy that was behind, ends before what clients have,
// and goes on with other events. Nobody tells the gateway. It finds out by the chain of hashes:
//
//   - A seat knows how far its client is (top) and the beginning of the hash there, from the position that the client resumed
//     with and from what it was sent. The event that follows must name that hash. This costs no read: the comparison is
//     made with the event that is pushed next, or with the head's hash when there is none.
//   - A room knows the hash of its head. A live event that does not chain to it, or a head in the store that is behind it, means
//     that the room's memory is of a branch that is gone: it is dropped, and the room begins anew from the store.
//
// A seat whose client is on another branch is given up with a push of Forked. The client gets nothing more of the conversation
// until it reconnects.

// prefix is the beginning of a hash as a number; 0 when the hash is not known.
func prefix(hash []byte) uint64 {
	if len(hash) < chain.PrefixSize {
		return 0
	}
	return binary.BigEndian.Uint64(hash)
}

// hashAt is the hash of an event; nil when the room does not have it. Callers hold mu.
func (r *room) hashAt(seq uint64) []byte {
	switch first := r.firstRecent(); {
	case seq == r.head:
		return r.headHash
	case seq > r.head || seq+1 < first:
		return nil
	case seq+1 == first:
		return r.recent[0].event.GetPrevHash()
	default:
		return r.recent[seq-first].event.GetHash()
	}
}

// differs reports whether the room knows another event at some seq. Callers hold mu.
func (r *room) differs(entries []*entry) bool {
	for _, e := range entries {
		if known := r.hashAt(e.seq()); len(known) > 0 && !bytes.Equal(known, e.event.GetHash()) {
			return true
		}
	}
	return false
}

// isForked reports whether the room knows another event at the seat's top than its client has. Callers hold mu.
func (r *room) isForked(s *seat) bool {
	known := prefix(r.hashAt(s.top))
	return s.topHash != 0 && known != 0 && known != s.topHash
}

// place decides how a seat goes on in a room that is ready: given up, behind or live. Callers hold mu.
func (r *room) place(s *seat) {
	switch {
	case s.top > max(r.head, r.seen) || r.isForked(s):
		r.fork(s)
	case s.sent < r.head:
		r.putBehind(s)
	case s.top == r.head && s.topHash == 0:
		s.topHash = prefix(r.headHash) // the client has what is there, and claimed nothing else
	}
}

// placeAll does it for every seat. Callers hold mu.
func (r *room) placeAll() {
	for _, s := range slices.Clone(r.seats) {
		r.place(s)
	}
}

// fork gives a seat up and tells its client. Callers hold mu.
func (r *room) fork(s *seat) {
	s.followed.Abandon("the client is on another branch of the log")
	s.forked = true
	if i := slices.Index(r.seats, s); i >= 0 {
		r.seats = slices.Delete(r.seats, i, i+1)
	}
	s.conn.forked(s, r.id, r.head, s.top)
}

// forked tells the client that its position is not on the log, and keeps the conversation from being pushed to it again. It is
// safe to call with a room's mu.
func (c *conn) forked(s *seat, conversationID string, head, seq uint64) {
	c.gw.metrics.Forks.Inc()
	c.enqueue(c.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{
		ConversationId: conversationID, Head: head, Seq: seq,
	}}}))
	c.mu.Lock()
	if s != nil && c.seats[conversationID] == s { // a later seat is in its room, and must be found when the connection ends
		delete(c.seats, conversationID)
	}
	if c.forks == nil {
		c.forks = map[string]struct{}{}
	}
	c.forks[conversationID] = struct{}{}
	c.mu.Unlock()
	c.gw.hub.flushSoon(conversationID, c)
}

// reload forgets what the room has, because the store has something else, and begins anew. Seats whose clients are known to
// have a part of the log that is still there go on; a client of which that is not known has to find out. Callers hold mu.
func (r *room) reload() {
	if !r.ready || r.closed {
		return // it is beginning anew already
	}
	gw := r.hub.gw
	gw.metrics.Reloads.Inc()
	gw.log.Warn("the log of a conversation is not the one that clients were sent; it is read anew. Was the database restored, or did it fail over?",
		"conversation", r.id, "seq", r.head)
	r.grow(-r.bytes)
	r.receipt = 0 // versions go back with the log
	r.recent = nil
	r.ready, r.head, r.headHash, r.seen, r.missed, r.erasedAt = false, 0, nil, 0, 0, 0
	for _, s := range r.seats {
		s.told = 0
		s.until = 0 // if the membership ends on this branch too, the event that ends it is still to come
		if s.topHash == 0 && s.top != 0 {
			s.topHash = ^uint64(0) // no event's: whatever follows, the seat is given up
		}
	}
	gw.workers.Go(func() {
		for wait := 50 * time.Millisecond; gw.ctx.Err() == nil; wait = min(2*wait, 2*time.Second) {
			ctx, cancel := context.WithTimeout(gw.ctx, gw.cfg.HistoryTimeout)
			err := r.hub.readHeads(ctx, []*room{r}, (*room).open)
			cancel()
			if err == nil || r.isClosed() {
				return
			}
			gw.log.Warn("a conversation cannot be read anew yet", "conversation", r.id, "error", err)
			pause(gw.ctx.Done(), wait/2+rand.N(wait/2+1))
		}
	})
}

func (r *room) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// standpoint is where a room stood when the store was asked for its head.
type standpoint struct {
	head uint64
	hash []byte
}

// standpoint is where the room stands; its head is 0 while that is not known.
func (r *room) standpoint() standpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		return standpoint{}
	}
	return standpoint{r.head, r.headHash}
}

// compare holds where the room stood to what the store answered afterwards: the loss of the last event is noticed here, and a
// store that went back.
func (r *room) compare(before standpoint, now *historyv1.Head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready || r.head < before.head {
		return // it began anew meanwhile
	}
	hash := now.GetHeadHash()
	if now.GetHead() < before.head ||
		(now.GetHead() == before.head && len(hash) > 0 && len(before.hash) > 0 && !bytes.Equal(hash, before.hash)) {
		r.reload()
		return
	}
	r.hear(now.GetHead())
}

// hear notes a seq that exists. Callers hold mu.
func (r *room) hear(seq uint64) {
	r.seen = max(r.seen, seq)
	if r.ready && r.seen > r.head {
		r.catchUpLocked()
	}
}

// doubtInterval is the least time between two questions to the store whether a room is on its log.
const doubtInterval = time.Second

// doubt asks the store whether the room is on its log, now and then. Callers hold mu.
func (r *room) doubt() {
	now := time.Now()
	if !r.ready || now.Before(r.doubtAt) {
		return
	}
	r.doubtAt = now.Add(doubtInterval)
	gw := r.hub.gw
	gw.workers.Go(func() {
		ctx, cancel := context.WithTimeout(gw.ctx, gw.cfg.HistoryTimeout)
		defer cancel()
		if err := r.hub.compareRooms(ctx, []*room{r}); err != nil && gw.ctx.Err() == nil {
			gw.log.Warn("the head of a conversation could not be compared", "conversation", r.id, "error", err)
		}
	})
}
