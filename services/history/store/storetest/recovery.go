package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testRecovery(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("after epochs are raised, workers with the old one are refused, and readers beyond the log get a fork", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		old := at(worker)
		raised, err := db.RaiseEpochs(t.Context())
		require.NoError(t, err)
		require.Len(t, raised, 1, "a partition that was never appended to has no epoch")
		require.Equal(t, uint32(3), raised[0].GetPartition())
		require.Greater(t, raised[0].GetWatermark().GetEpoch(), old.GetEpoch())
		requireWatermark(t, db, 3, raised[0].GetWatermark())

		_, err = db.Append(t.Context(), worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("m")))...))
		var moved *store.WatermarkError
		require.ErrorAs(t, err, &moved)
		worker.Watermark = moved.Present
		worker.Commit(t, worker.Command(id, "alice", Message("goes on")))
		requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch(), Sequence: old.GetSequence() + 1}, old)
		rest, _ := readFeed(t, db, 3, old, 10)
		require.Len(t, rest, 1)

		again, err := db.RaiseEpochs(t.Context())
		require.NoError(t, err)
		require.Greater(t, again[0].GetWatermark().GetEpoch(), raised[0].GetWatermark().GetEpoch())
	})

	t.Run("an accepted loss moves the watermark over it, in a new epoch", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		old := at(worker)
		var invalid *store.InvalidError
		_, err := db.AcceptLoss(t.Context(), 3, ids.Sequence(old.GetSequence()))
		require.ErrorAs(t, err, &invalid)
		_, err = db.AcceptLoss(t.Context(), 5, 9)
		require.ErrorAs(t, err, &invalid)
		loss, err := db.AcceptLoss(t.Context(), 3, 40)
		require.NoError(t, err)
		require.Greater(t, loss.Epoch, ids.Epoch(old.GetEpoch()))
		require.Equal(t, &store.Loss{Partition: 3, Stream: worker.Watermark.GetStream(), First: ids.Sequence(old.GetSequence() + 1), Last: 40, Epoch: loss.Epoch}, loss)
		worker.Watermark.Epoch, worker.Watermark.Sequence = uint64(loss.Epoch), 40
		requireWatermark(t, db, 3, worker.Watermark)
		worker.Commit(t, worker.Command(id, "alice", Message("goes on")))
		require.Len(t, VerifyLog(t, db, id), 3)
		require.Equal(t, 38, db.Count(t, "SELECT last_sequence - first_sequence + 1 FROM losses"))
		requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch(), Sequence: 30}, old)
	})
}
