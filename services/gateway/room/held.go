package room

import (
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
)

// An outcome arrives shortly before its event, which the sender of the command also receives. The outcome is held back
// until the event arrives, so that both are sent in one write.

const (
	// holdTime is the maximum time for which an outcome is held back: its event may be lost or late.
	holdTime = 5 * time.Millisecond
	// maxHeld limits the number of senders whose outcomes are held back. Above it, outcomes are written at once.
	maxHeld = shardCapacity
)

// held contains the senders of a shard whose outcomes wait for their events.
type held struct {
	due *time.Timer // fires when the sender that was added first has waited for holdTime

	mu      sync.Mutex
	wait    time.Duration
	senders []Sender
}

func (h *held) init() {
	h.wait = holdTime
	h.due = time.NewTimer(h.wait)
	h.due.Stop()
}

// add adds a sender. It returns false if there are too many senders.
func (h *held) add(sender Sender) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.senders) >= maxHeld {
		return false
	}
	h.senders = append(h.senders, sender)
	if len(h.senders) == 1 {
		h.due.Reset(h.wait)
	}
	return true
}

// release appends all senders to dirty, and removes them from held.
func (h *held) release(dirty []Sender) []Sender {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.senders) == 0 {
		return dirty
	}
	h.due.Stop()
	dirty = append(dirty, h.senders...)
	clear(h.senders)
	h.senders = h.senders[:0]
	return dirty
}

// FlushWith writes a sender's queue together with the event at seq, if the room still expects that event. Otherwise it
// does the same as FlushSoon.
func (h *Hub) FlushWith(conversationID ids.Conversation, seq ids.Seq, sender Sender) {
	r := h.Room(conversationID)
	if r == nil || !r.holdFor(seq, h.shardOf(conversationID), sender) {
		h.FlushSoon(conversationID, sender)
	}
}

// holdFor makes a sender wait for an event that the room has not taken yet. It holds the room's lock, because the shard
// releases the waiting senders only after it has taken the event.
func (r *Room) holdFor(seq ids.Seq, s *shard, sender Sender) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready && seq > r.head && s.held.add(sender)
}
