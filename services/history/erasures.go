package history

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/ledger"
	"github.com/runnelhq/runnel/services/history/store"
)

// recordErasures writes the erasures of a batch to the ledger, before the batch is committed. It skips a batch whose
// watermark has moved: the store refuses that batch, because its worker has lost the partition.
func (s *Server) recordErasures(ctx context.Context, request *historyv1.AppendRequest) error {
	if s.ledger == nil {
		return nil
	}
	var entries []ledger.Entry
	for _, effect := range request.GetEffects() {
		erase := effect.GetEraseEvents()
		if erase == nil {
			continue
		}
		if len(entries) == 0 {
			present, err := s.store.Watermark(ctx, ids.Partition(request.GetPartition()))
			if err != nil {
				return err
			}
			if store.ComparePositions(present, request.GetExpected()) != 0 {
				return nil
			}
		}
		event := request.GetEvents()[effect.GetEvent()]
		hashes, err := s.store.Hashes(ctx, ids.Conversation(event.GetConversationId()), erase.GetSeqs())
		if err != nil {
			return err
		}
		for _, other := range request.GetEvents() { // events of the same batch are not stored yet
			if other.GetConversationId() == event.GetConversationId() {
				hashes[other.GetSeq()] = other.GetHash()
			}
		}
		entries = append(entries, ledger.NewEntry(event, erase, hashes))
	}
	if err := s.ledger.Record(entries); err != nil {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
	}
	return nil
}
