package room

import (
	"bytes"
	"context"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// Forks. A database that is restored from a backup, or fails over to a copy that was behind, ends before the clients'
// positions, and continues with other events. The gateway is not notified. It detects this by the chain of hashes:
//
//   - A subscription knows its client's position (top) and the beginning of the hash there, from the position that the client
//     resumed with and from the events it was sent. The event that follows must contain that hash. This costs no read: the comparison
//     is made with the event that is pushed next, or with the head's hash when there is none.
//   - A room knows the hash of its head. A live event that does not chain to it, or a head in the store that is behind it, means that the room's memory is of a branch that no longer exists: it is dropped, and the room is reloaded from the store.
//
// A subscription whose client is on another branch is given up with a push of Forked. The client gets nothing more of the
// conversation until it reconnects.

// hashAtLocked returns the hash of an event; nil when the room does not have it.
func (r *Room) hashAtLocked(seq ids.Seq) []byte {
	switch first := r.firstRecentLocked(); {
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

// differsLocked reports whether the room has a different event at the seq of any entry.
func (r *Room) differsLocked(entries []*entry) bool {
	for _, e := range entries {
		if known := r.hashAtLocked(e.seq()); len(known) > 0 && !bytes.Equal(known, e.event.GetHash()) {
			return true
		}
	}
	return false
}

// isForkedLocked reports whether the event at the subscription's top in the log differs from the client's event.
func (r *Room) isForkedLocked(s *Subscription) bool {
	known := page.HashPrefix(r.hashAtLocked(s.top))
	return s.topHash != 0 && known != 0 && known != s.topHash
}

// isElsewhere reports whether the event at the subscription's top in the log differs from the client's event. entries are
// the events that follow sent.
func (s *Subscription) isElsewhere(entries []*entry) bool {
	switch first := entries[0].seq(); {
	case s.topHash == 0:
		return false
	case s.top+1 == first:
		return page.HashPrefix(entries[0].event.GetPrevHash()) != s.topHash
	case s.top >= first && s.top-first < ids.Seq(len(entries)):
		return page.HashPrefix(entries[s.top-first].event.GetHash()) != s.topHash
	default:
		return false
	}
}

// placeLocked decides whether a subscription in a ready room is forked, behind or live.
func (r *Room) placeLocked(s *Subscription) {
	switch {
	case s.top > max(r.head, r.seen) || r.isForkedLocked(s):
		r.forkLocked(s)
	case s.sent < r.head:
		r.putBehindLocked(s)
	case s.top == r.head && s.topHash == 0:
		s.topHash = page.HashPrefix(r.headHash) // the client is at the head; its hash matches or is not known
	}
}

func (r *Room) placeAllLocked() { r.eachLocked(r.placeLocked) }

// forkLocked removes a subscription whose client is on another branch, and notifies the client.
func (r *Room) forkLocked(s *Subscription) {
	s.abandon("the client is on another branch of the log")
	s.forked = true
	r.removeLocked(s)
	s.to.Subscriber.Forked(s, r.id, r.head, s.top)
}

// reloadLocked discards the events in memory, because the store has another log, and reloads from the store. A
// subscription continues only if all events of its client are known to be in the new log. The position of any other
// client must be checked.
func (r *Room) reloadLocked() {
	if !r.ready || r.closed {
		return // a reload is under way
	}
	h := r.hub
	h.cfg.Metrics.Reloads.Inc()
	h.cfg.Logger.Warn("the log of a conversation differs from the one that was sent to clients; it is read again. Was the database restored, or did it fail over?",
		"conversation", r.id, "seq", r.head)
	r.growLocked(-r.bytes)
	r.receipt = 0 // the new log's receipts may have lower versions
	r.recent = nil
	r.ready, r.head, r.headHash, r.seen, r.missed, r.erasedAt = false, 0, nil, 0, 0, 0
	for _, s := range r.subscriptions {
		s.told = 0
		s.until = 0 // if the membership also ends on this branch, its last event is still to come
		if s.topHash == 0 && s.top != 0 {
			s.topHash = ^uint64(0) // no event has this hash, so the next comparison finds a fork
		}
	}
	h.workers.Go(func() {
		for wait := time.Duration(0); h.ctx.Err() == nil; {
			ctx, cancel := context.WithTimeout(h.ctx, h.cfg.HistoryTimeout)
			err := h.readHeads(ctx, []*Room{r}, (*Room).open)
			cancel()
			if err == nil || r.isClosed() {
				return
			}
			h.cfg.Logger.Warn("could not reload a conversation from the store; trying again", "conversation", r.id, "error", err)
			wait = backoff.Wait(h.ctx.Done(), wait)
		}
	})
}

func (r *Room) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// standpoint is a snapshot of a room, taken when the store was asked for the head.
type standpoint struct {
	head ids.Seq
	hash []byte
}

// standpoint returns a snapshot of the room. Its head is 0 while the room does not know its head.
func (r *Room) standpoint() standpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready {
		return standpoint{}
	}
	return standpoint{r.head, r.headHash}
}

// compare compares an earlier snapshot of the room with the store's later answer. It detects that the last live event was
// lost, or that the store was restored to an older state.
func (r *Room) compare(before standpoint, now *historyv1.Head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ready || r.head < before.head {
		return // the room was reloaded meanwhile
	}
	hash := now.GetHeadHash()
	if ids.Seq(now.GetHead()) < before.head ||
		(ids.Seq(now.GetHead()) == before.head && len(hash) > 0 && len(before.hash) > 0 && !bytes.Equal(hash, before.hash)) {
		r.reloadLocked()
		return
	}
	r.hearLocked(ids.Seq(now.GetHead()))
}

// doubtInterval is the minimum time between two requests to the store that compare a room with the log.
const doubtInterval = time.Second

// doubtLocked asks the store whether the room's head is on the log, at most once per doubtInterval.
func (r *Room) doubtLocked() {
	now := time.Now()
	if !r.ready || now.UnixNano() < r.doubtAt {
		return
	}
	r.doubtAt = now.Add(doubtInterval).UnixNano()
	h := r.hub
	h.workers.Go(func() {
		ctx, cancel := context.WithTimeout(h.ctx, h.cfg.HistoryTimeout)
		defer cancel()
		if err := h.compareRooms(ctx, []*Room{r}); err != nil && h.ctx.Err() == nil {
			h.cfg.Logger.Warn("could not read the head of a conversation, to compare it with the room", "conversation", r.id, "error", err)
		}
	})
}
