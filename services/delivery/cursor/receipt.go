package cursor

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// maxSteps is the maximum number of steps of a receipt.
const maxSteps = 32

// ReceiptOf makes the receipt of a conversation from its members' cursors and its head.
//
// The version is computed from the content, so it rises across takeovers without a clock: it is the sum of all cursors, plus head times
// (head + 1). Cursors only move forward, and a receipt contains only stored cursors. When a member leaves, the sum falls
// by at most twice the previous head; but then the head has also risen, and the product by more than the sum fell. Equal versions have
// equal content. The version fits into its type for heads below 2^31.
func ReceiptOf(id ids.Conversation, cursors *Table, head ids.Seq) *conversationv1.Receipt {
	delivered, read := make(map[ids.Seq]uint32, 8), make(map[ids.Seq]uint32, 8)
	var sum uint64
	for i := range cursors.rows {
		at := &cursors.rows[i].at
		delivered[at.Delivered]++
		read[at.Read]++
		sum += uint64(at.Delivered + at.Read)
	}
	sum += uint64(head * (head + 1))
	return &conversationv1.Receipt{
		ConversationId: string(id), Members: uint32(len(cursors.rows)), Delivered: stepsOf(delivered), Read: stepsOf(read), Version: int64(sum),
	}
}

// stepsOf turns the number of members at each seq into steps, highest first. Each step also counts the members of the
// steps above it. A cursor at seq 0 means that the member has received nothing, so 0 is not a step.
func stepsOf(at map[ids.Seq]uint32) []*conversationv1.Step {
	seqs := make([]ids.Seq, 0, len(at))
	for seq := range at {
		if seq > 0 {
			seqs = append(seqs, seq)
		}
	}
	slices.SortFunc(seqs, func(a, b ids.Seq) int {
		if a > b {
			return -1
		}
		return 1 // the keys of a map are never equal
	})
	if len(seqs) > maxSteps {
		seqs = seqs[:maxSteps]
	}
	steps := make([]*conversationv1.Step, len(seqs))
	var members uint32
	for i, seq := range seqs {
		members += at[seq]
		steps[i] = &conversationv1.Step{Seq: uint64(seq), Members: members}
	}
	return steps
}
