package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testInstallation(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("a new database has the level of the build that made it", func(t *testing.T) {
		level, err := subject.New(t).Level(t.Context())
		require.NoError(t, err)
		require.Equal(t, conversation.MaxLevel(), level)
	})

	t.Run("the level only rises, and a build below it does not open the database", func(t *testing.T) {
		db := subject.New(t)
		for _, level := range []conversation.Level{40, 40, 41} {
			require.NoError(t, db.RaiseLevel(t.Context(), level))
		}
		require.ErrorIs(t, db.RaiseLevel(t.Context(), 9), store.ErrLevel)
		level, err := db.Level(t.Context())
		require.NoError(t, err)
		require.Equal(t, conversation.Level(41), level)
		_, err = db.Reopen(t.Context(), Partitions)
		require.ErrorContains(t, err, "protocol level is 41")
		require.ErrorContains(t, err, "never lowered")
	})

	t.Run("a backup is marked at the current watermarks, or at those of its start", func(t *testing.T) {
		db, worker, id := group(t, subject)
		none, err := db.BackupMark(t.Context(), 3)
		require.NoError(t, err)
		require.Nil(t, none)
		begun := worker.Watermark
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		marks, err := db.MarkBackup(t.Context(), nil)
		require.NoError(t, err)
		require.Len(t, marks, 1, "partitions that were never appended to have nothing to mark")
		requireProto(t, &historyv1.BackupMark{Partition: 3, Watermark: worker.Watermark}, marks[0])
		stored, err := db.BackupMark(t.Context(), 3)
		require.NoError(t, err)
		requireProto(t, worker.Watermark, stored)

		other := NewWorker(db, 1, worker.clock)
		other.Commit(t, other.CreateGroup("alice", "g"))
		marks, err = db.MarkBackup(t.Context(), []*historyv1.BackupMark{{Partition: 3, Watermark: begun}, {Partition: 1, Watermark: other.Watermark}})
		require.NoError(t, err)
		require.Len(t, marks, 2)
		requireProto(t, &historyv1.BackupMark{Partition: 1, Watermark: other.Watermark}, marks[0])
		requireProto(t, &historyv1.BackupMark{Partition: 3, Watermark: begun}, marks[1])

		ahead := []*historyv1.BackupMark{{Partition: 1, Watermark: begun}, {Partition: 3, Watermark: &historyv1.Watermark{
			Stream: begun.GetStream(), Epoch: begun.GetEpoch(), Sequence: worker.Watermark.GetSequence() + 1,
		}}}
		ahead[0].Watermark = other.Watermark
		_, err = db.MarkBackup(t.Context(), ahead)
		var invalid *store.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "marks[1].watermark", invalid.Field)
	})
}
