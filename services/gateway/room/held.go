package room

import (
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
)

// An outcome arrives shortly before its event, which the sender receives as well. The outcome is held back until then, so that both
// are sent in one write.

const (
	// holdTime limits how long an outcome is held back: its event may be lost, or late.
	holdTime = 5 * time.Millisecond
	// maxHeld limits the senders with outcomes that are held back. Above it they are written at once.
	maxHeld = shardCapacity
)

// held are the senders of a shard whose outcomes wait for events.
type held struct {
	due *time.Timer // fires when the first of the senders has waited long enough

	mu      sync.Mutex
	wait    time.Duration
	senders []Sender
}

func (h *held) init() {
	h.wait = holdTime
	h.due = time.NewTimer(h.wait)
	h.due.Stop()
}

// add adds a sender. It returns false if there are too many.
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

// release appends all senders to dirty, and removes them.
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

// FlushWith lets the conversation's shard write what was queued to a sender together with the event at seq, if that event is still
// expected; otherwise as FlushSoon does.
func (h *Hub) FlushWith(conversationID ids.Conversation, seq ids.Seq, sender Sender) {
	r := h.Room(conversationID)
	if r == nil || !r.holdFor(seq, h.shardOf(conversationID), sender) {
		h.FlushSoon(conversationID, sender)
	}
}

// holdFor has a sender wait for an event that the room has not taken yet. The lock of the room is held meanwhile: the shard takes
// the waiting senders only after the event.
func (r *Room) holdFor(seq ids.Seq, s *shard, sender Sender) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready && seq > r.head && s.held.add(sender)
}
