package sqlite

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// epochs caches the id of each partition's current epoch, so that an append need not look it up. Only the writer uses it.
// The writer clears the cache when it undoes a write: an id read in that write may never be committed, and another epoch
// may get it later.
type epochs map[uint32]store.Epoch

// epochID returns the id of an epoch of a partition.
func (w *writer) epochID(ctx context.Context, partition ids.Partition, epoch ids.Epoch) (int64, error) {
	if known := w.epochs[uint32(partition)]; known.Epoch == epoch && known.ID > 0 {
		return known.ID, nil
	}
	found := store.Epoch{Epoch: epoch}
	if err := w.statements.epochID.QueryRowContext(ctx, uint32(partition), int64(epoch)).Scan(&found.ID); err != nil {
		return 0, err
	}
	w.epochs[uint32(partition)] = found
	return found.ID, nil
}

// beginEpoch ends the epoch of the watermark old and begins the epoch of the watermark next.
func (w *writer) beginEpoch(ctx context.Context, partition ids.Partition, old, next *historyv1.Watermark) error {
	if _, err := w.statements.endEpoch.ExecContext(ctx, int64(old.GetSequence()), uint32(partition), int64(old.GetEpoch())); err != nil {
		return err
	}
	_, err := w.statements.beginEpoch.ExecContext(ctx, uint32(partition), int64(next.GetEpoch()), next.GetStream())
	return err
}
