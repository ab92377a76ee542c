package ledger

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Store is the part of the store that is needed to apply a ledger.
type Store interface {
	Hashes(ctx context.Context, conversationID ids.Conversation, seqs []uint64) (map[uint64][]byte, error)
	EraseAgain(ctx context.Context, conversationID ids.Conversation, erase *historyv1.EraseEvents) (int, error)
}

// Apply repeats all erasures of a ledger, and returns how many events lost their content. Repeating an erasure that was
// already carried out changes nothing. Events that do not exist, or that differ from the erased ones, are skipped.
func Apply(ctx context.Context, store Store, entries []Entry) (erased int, err error) {
	for _, entry := range entries {
		erase := &historyv1.EraseEvents{
			Sender: string(entry.Sender), BeforeMs: entry.BeforeMs, Targeting: entry.Targeting, Kinds: entry.Kinds, Below: uint64(entry.Below),
		}
		if len(entry.Seqs) == 0 && erase.GetBeforeMs() == 0 {
			// The erasure did not erase events that were written after it. If the log went back, such events may have the
			// same seqs.
			erase.BeforeMs = entry.TimeMs + 1
		}
		if len(entry.Seqs) > 0 {
			if erase.Seqs, err = same(ctx, store, entry); err != nil {
				return erased, err
			}
			if len(erase.GetSeqs()) == 0 {
				continue
			}
		}
		n, err := store.EraseAgain(ctx, entry.ConversationID, erase)
		if err != nil {
			return erased, fmt.Errorf("repeat the erasure of seq %d of %s: %w", entry.Seq, entry.ConversationID, err)
		}
		erased += n
	}
	return erased, nil
}

// same returns the seqs of an entry at which the log still has the erased events.
func same(ctx context.Context, store Store, entry Entry) (seqs []uint64, err error) {
	hashes, err := store.Hashes(ctx, entry.ConversationID, entry.Seqs)
	if err != nil {
		return nil, err
	}
	for i, seq := range entry.Seqs {
		if hash := hashes[seq]; len(hash) > 0 && i < len(entry.Hashes) && entry.Hashes[i] == prefix(hash) {
			seqs = append(seqs, seq)
		}
	}
	return seqs, nil
}
