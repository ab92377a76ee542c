package store

import (
	"cmp"
	"context"
	"slices"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Cursors stores how far members have received and read.
type Cursors interface {
	// SaveCursors moves cursors forward. Each part (delivered, read) moves separately, together with its time.
	SaveCursors(ctx context.Context, updates []*historyv1.CursorUpdate) error
}

// MergeCursors merges updates so that there is at most one for each conversation and user, ordered by conversation and
// user. One statement may touch a row only once, and two writers that lock rows in the same order cannot deadlock.
// Updates that move no cursor are left out. The updates passed in are not changed.
func MergeCursors(updates []*historyv1.CursorUpdate) []*historyv1.CursorUpdate {
	merged := make([]*historyv1.CursorUpdate, 0, len(updates))
	for _, update := range updates {
		if cursor := update.GetCursor(); cursor.GetDeliveredSeq() > 0 || cursor.GetReadSeq() > 0 {
			merged = append(merged, update)
		}
	}
	slices.SortStableFunc(merged, func(a, b *historyv1.CursorUpdate) int {
		return cmp.Or(cmp.Compare(a.GetConversationId(), b.GetConversationId()), cmp.Compare(a.GetCursor().GetUserId(), b.GetCursor().GetUserId()))
	})
	kept := merged[:0]
	for _, update := range merged {
		if n := len(kept); n > 0 && sameCursor(kept[n-1], update) {
			kept[n-1] = &historyv1.CursorUpdate{
				ConversationId: update.GetConversationId(),
				Cursor:         later(kept[n-1].GetCursor(), update.GetCursor()),
			}
			continue
		}
		kept = append(kept, update)
	}
	return kept
}

func sameCursor(a, b *historyv1.CursorUpdate) bool {
	return a.GetConversationId() == b.GetConversationId() && a.GetCursor().GetUserId() == b.GetCursor().GetUserId()
}

// later returns, for each part of two cursors, the larger seq with its time. If the seqs are equal, a's time is kept, as
// in the table.
func later(a, b *conversationv1.Cursor) *conversationv1.Cursor {
	cursor := &conversationv1.Cursor{
		UserId:       a.GetUserId(),
		DeliveredSeq: a.GetDeliveredSeq(), DeliveredTimeMs: a.GetDeliveredTimeMs(),
		ReadSeq: a.GetReadSeq(), ReadTimeMs: a.GetReadTimeMs(),
	}
	if b.GetDeliveredSeq() > a.GetDeliveredSeq() {
		cursor.DeliveredSeq, cursor.DeliveredTimeMs = b.GetDeliveredSeq(), b.GetDeliveredTimeMs()
	}
	if b.GetReadSeq() > a.GetReadSeq() {
		cursor.ReadSeq, cursor.ReadTimeMs = b.GetReadSeq(), b.GetReadTimeMs()
	}
	return cursor
}
