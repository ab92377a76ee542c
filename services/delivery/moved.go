package delivery

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// cursor is how far a member of a conversation has received and read, and since when.
type cursor struct {
	delivered, read         uint64
	deliveredTime, readTime int64
}

// cursorOf is the cursor that the store knows.
func cursorOf(c *conversationv1.Cursor) cursor {
	return cursor{c.GetDeliveredSeq(), c.GetReadSeq(), c.GetDeliveredTimeMs(), c.GetReadTimeMs()}
}

// proto is the cursor of a user as the store keeps it.
func (c cursor) proto(user string) *conversationv1.Cursor {
	return &conversationv1.Cursor{
		UserId: user, DeliveredSeq: c.delivered, DeliveredTimeMs: c.deliveredTime, ReadSeq: c.read, ReadTimeMs: c.readTime,
	}
}

// advance moves the cursor forward to what a member acknowledged, never beyond the head and never back. Reading implies
// having received. It reports whether the cursor moved.
func (c *cursor) advance(delivered, read, head uint64, nowMs int64) bool {
	read = min(read, head)
	delivered = max(min(delivered, head), read)
	if delivered <= c.delivered && read <= c.read {
		return false
	}
	if delivered > c.delivered {
		c.delivered, c.deliveredTime = delivered, nowMs
	}
	if read > c.read {
		c.read, c.readTime = read, nowMs
	}
	return true
}

type cursorKey struct{ conversation, user string }

// moves are cursors on their way to the store and the receipts that tell of them. Newer ones replace older ones, so moves
// that could not be stored yet stay as small as the conversations in memory are.
type moves struct {
	cursors  map[cursorKey]cursor
	receipts map[string]*conversationv1.Receipt
}

func newMoves() *moves {
	return &moves{cursors: map[cursorKey]cursor{}, receipts: map[string]*conversationv1.Receipt{}}
}

// add adds what moved in one conversation, and its receipt. moved names members.
func (m *moves) add(conversation string, cursors map[string]cursor, moved map[string]struct{}, head uint64) {
	for user := range moved {
		m.cursors[cursorKey{conversation: conversation, user: user}] = cursors[user]
	}
	m.receipts[conversation] = receiptOf(conversation, cursors, head)
}
