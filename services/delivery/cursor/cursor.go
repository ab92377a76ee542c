// Package cursor manages how far members have received and read: it makes receipts, stores cursors in batches, and
// publishes the receipts after their cursors are stored.
package cursor

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Position is how far a member of a conversation has received and read, and since when.
type Position struct {
	Delivered, Read             ids.Seq
	DeliveredTimeMs, ReadTimeMs int64
}

// PositionOf returns the position in a cursor of the store.
func PositionOf(c *conversationv1.Cursor) Position {
	return Position{ids.Seq(c.GetDeliveredSeq()), ids.Seq(c.GetReadSeq()), c.GetDeliveredTimeMs(), c.GetReadTimeMs()}
}

// Proto returns the cursor of a user in the store's form.
func (p *Position) Proto(user ids.User) *conversationv1.Cursor {
	return &conversationv1.Cursor{
		UserId: string(user), DeliveredSeq: uint64(p.Delivered), DeliveredTimeMs: p.DeliveredTimeMs, ReadSeq: uint64(p.Read), ReadTimeMs: p.ReadTimeMs,
	}
}

// Advance moves the cursor forward to the acknowledged position, never beyond the head and never back. A read event also
// counts as received. It reports whether the cursor moved.
func (p *Position) Advance(delivered, read, head ids.Seq, nowMs int64) bool {
	read = min(read, head)
	delivered = max(min(delivered, head), read)
	if delivered <= p.Delivered && read <= p.Read {
		return false
	}
	if delivered > p.Delivered {
		p.Delivered, p.DeliveredTimeMs = delivered, nowMs
	}
	if read > p.Read {
		p.Read, p.ReadTimeMs = read, nowMs
	}
	return true
}

// Key identifies a member of a conversation.
type Key struct {
	Conversation ids.Conversation
	User         ids.User
}

// Moves are the cursors to be stored, and the receipts to be published after that. Newer cursors and receipts replace
// older ones. Therefore, while the store is unavailable, Moves never contains more than the conversations in memory.
type Moves struct {
	Cursors  map[Key]Position
	Receipts map[ids.Conversation]*conversationv1.Receipt
}

// NewMoves makes empty moves.
func NewMoves() *Moves {
	return &Moves{Cursors: map[Key]Position{}, Receipts: map[ids.Conversation]*conversationv1.Receipt{}}
}

// Add collects the cursors of one conversation that are ahead of the store, and adds them and the conversation's receipt.
func (m *Moves) Add(conversation ids.Conversation, cursors *Table, head ids.Seq) {
	cursors.Collect(func(user ids.User, at Position) {
		m.Cursors[Key{Conversation: conversation, User: user}] = at
	})
	m.Receipts[conversation] = ReceiptOf(conversation, cursors, head)
}
