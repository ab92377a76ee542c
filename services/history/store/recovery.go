package store

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Recovery contains the operations for operators after a loss.
type Recovery interface {
	// RaiseEpochs begins a new epoch in every partition with an earlier append, and returns the new watermarks by
	// partition. It is for a restored database.
	RaiseEpochs(ctx context.Context) ([]*historyv1.BackupMark, error)
	// AcceptLoss moves the watermark of a partition over lost commands, up to and including the sequence through of the
	// same stream. It begins a new epoch and stores the lost range. *InvalidError if there is nothing to move over.
	AcceptLoss(ctx context.Context, partition ids.Partition, through ids.Sequence) (*Loss, error)
	// EraseAgain carries out an erasure of the erase ledger, without an append, and returns how many events lost their
	// content. It returns 0 for a conversation that does not exist.
	EraseAgain(ctx context.Context, conversationID ids.Conversation, erase *historyv1.EraseEvents) (int, error)
	// Hashes returns the hashes of events; events that do not exist are left out.
	Hashes(ctx context.Context, conversationID ids.Conversation, seqs []uint64) (map[uint64][]byte, error)
}

// Loss is a lost stretch of a stream.
type Loss struct {
	Partition ids.Partition
	Stream    string
	// First and Last are the stream sequences that are lost.
	First, Last ids.Sequence
	// Epoch is the epoch that begins after the loss.
	Epoch ids.Epoch
}

// CheckLoss returns an *InvalidError if a loss through a sequence is impossible at a watermark.
func CheckLoss(present *historyv1.Watermark, through ids.Sequence) error {
	switch {
	case present.GetStream() == "":
		return Invalid("partition", "was never appended to, so nothing of it can be lost")
	case through <= ids.Sequence(present.GetSequence()):
		return Invalid("through", "must be above the partition's watermark, which is at sequence %d", present.GetSequence())
	}
	return nil
}

// NextEpoch returns the epoch that follows the epoch old.
func NextEpoch(old ids.Epoch, nowMs int64) ids.Epoch { return max(old+1, ids.Epoch(max(nowMs, 0))) }
