package storetest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testPositions(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("the first append begins an epoch, the next ones stay in it", func(t *testing.T) {
		db, worker, id := group(t, subject)
		first := worker.Watermark.GetEpoch()
		require.Positive(t, first)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		require.Equal(t, first, worker.Watermark.GetEpoch())
		leases, err := db.Leases(t.Context())
		require.NoError(t, err)
		require.Equal(t, first, leases.GetLeases()[3].GetWatermark().GetEpoch())
	})

	t.Run("positions that do not rise are refused", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")), worker.Command(id, "alice", Message("m")))
		at := worker.Watermark.GetSequence()
		for name, spoil := range map[string]func(*historyv1.AppendRequest){
			"at the watermark": func(b *historyv1.AppendRequest) { b.Sequences[0] = at },
			"below it":         func(b *historyv1.AppendRequest) { b.Sequences[0] = at - 1 },
			"0":                func(b *historyv1.AppendRequest) { b.Sequences[0] = 0; b.BeginEpoch = true },
			"twice":            func(b *historyv1.AppendRequest) { b.Sequences[1] = b.GetSequences()[0] },
			"above next":       func(b *historyv1.AppendRequest) { b.Sequences[1] = b.GetNext().GetSequence() + 1 },
			"watermark back": func(b *historyv1.AppendRequest) {
				b.Next.Sequence, b.Events, b.Sequences, b.Effects = at-1, nil, nil, nil
			},
			"another stream":     func(b *historyv1.AppendRequest) { b.Next.Stream = "2" },
			"above next, begins": func(b *historyv1.AppendRequest) { b.Next.Sequence, b.BeginEpoch = 1, true },
		} {
			batch := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("1")), worker.Command(id, "alice", Message("2")))...)
			spoil(batch)
			_, err := db.Append(t.Context(), batch)
			require.ErrorIs(t, err, store.ErrPosition, name)
		}
		batch := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("1")))...)
		batch.Sequences = nil
		_, err := db.Append(t.Context(), batch)
		var invalid *store.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Len(t, VerifyLog(t, db, id), 3)
	})

	t.Run("a batch that begins an epoch may go back or to another stream, and earlier epochs are kept", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")), worker.Command(id, "alice", Message("m")))
		old := worker.Watermark
		for _, stream := range []string{old.GetStream(), "2"} {
			before := worker.Watermark.GetEpoch()
			batch := worker.Batch(worker.Apply(t, worker.Command(id, "alice", Message("after")))...)
			batch.BeginEpoch, batch.Next.Stream, batch.Next.Sequence, batch.Sequences = true, stream, 1, []uint64{1}
			_, err := worker.Append(t.Context(), batch)
			require.NoError(t, err)
			require.Greater(t, worker.Watermark.GetEpoch(), before)
			requireWatermark(t, db, 3, worker.Watermark)
		}
		require.Len(t, VerifyLog(t, db, id), 5)
		require.Equal(t, 3, db.Count(t, "SELECT count(*) FROM epochs WHERE partition = 3"))
		require.Equal(t, int(old.GetSequence()), db.Count(t, fmt.Sprintf("SELECT last_sequence FROM epochs WHERE epoch = %d", old.GetEpoch())))
		require.Equal(t, 1, db.Count(t, "SELECT count(*) FROM epochs WHERE partition = 3 AND last_sequence IS NULL"))
	})

	t.Run("an epoch that was begun by an append that was undone is begun again", func(t *testing.T) {
		db, worker, id := group(t, subject)
		// The clock of the store is behind the current epoch, so the next epoch does not depend on the time at which it
		// begins.
		const present = 1 << 60
		db.Exec(t, fmt.Sprintf("UPDATE partitions SET epoch = %d WHERE partition = 3", present))
		db.Exec(t, fmt.Sprintf("UPDATE epochs SET epoch = %d WHERE partition = 3", present))
		worker.Watermark.Epoch = present
		same := worker.Command(id, "alice", Message("m"))
		worker.Commit(t, same)
		begin := func(commands ...*brokerv1.Command) *historyv1.AppendRequest {
			batch := worker.Batch(worker.Fork().Apply(t, commands...)...)
			batch.BeginEpoch, batch.Next.Stream, batch.Next.Sequence, batch.Sequences = true, "2", 1, []uint64{1}
			return batch
		}
		answer, err := db.Append(t.Context(), begin(same))
		require.NoError(t, err)
		require.Len(t, answer.GetDuplicates(), 1)
		NewWorker(db, 4, worker.clock).Commit(t, worker.CreateGroup("dave", "elsewhere"))
		_, err = db.Append(t.Context(), begin(worker.Command(id, "alice", Message("after"))))
		require.NoError(t, err)
		all, _ := readFeed(t, db, 3, nil, store.MaxPage)
		require.Equal(t, id, all[len(all)-1].GetEvent().GetConversationId())
		require.Equal(t, uint64(len(all)), all[len(all)-1].GetEvent().GetSeq())
		elsewhere, _ := readFeed(t, db, 4, nil, store.MaxPage)
		require.Len(t, elsewhere, 1, "an event of one partition in the epoch of another")
	})

	t.Run("a position that another event has is refused", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		// A watermark below committed positions is possible only through damage.
		db.Exec(t, "UPDATE partitions SET sequence = 0 WHERE partition = 3")
		worker.Watermark.Sequence = 0
		_, err := db.Append(t.Context(), worker.Batch(worker.Apply(t, worker.Command(id, "alice", Message("m")))...))
		require.ErrorIs(t, err, store.ErrPosition)
	})

	t.Run("conversations and memberships have the positions of their events", func(t *testing.T) {
		db, worker, id := group(t, subject)
		epoch := int(worker.Watermark.GetEpoch())
		worker.Commit(t, worker.Command(id, "alice", Add("carol")), worker.Command(id, "carol", Message("m")), worker.Command(id, "carol", Leave()))
		for query, want := range map[string]int{
			"SELECT sequence FROM conversations":                                                  4,
			"SELECT joined_sequence FROM memberships WHERE user_id = 'bob'":                       1,
			"SELECT joined_sequence FROM memberships WHERE user_id = 'carol'":                     2,
			"SELECT left_sequence FROM memberships WHERE user_id = 'carol'":                       4,
			"SELECT epoch FROM conversations":                                                     epoch,
			"SELECT joined_epoch FROM memberships WHERE user_id = 'carol'":                        epoch,
			"SELECT left_epoch FROM memberships WHERE user_id = 'carol'":                          epoch,
			"SELECT count(*) FROM memberships WHERE left_sequence IS NOT NULL":                    1,
			"SELECT count(*) FROM events WHERE commitment IS NOT NULL":                            0,
			"SELECT count(*) FROM message_views":                                                  0,
			"SELECT count(*) FROM events WHERE header_extra IS NOT NULL":                          1, // the create
			"SELECT count(DISTINCT sequence) FROM events":                                         4,
			"SELECT count(*) FROM events WHERE format <> 2":                                       0,
			"SELECT count(*) FROM events JOIN epochs ON epochs.id = epoch_id WHERE partition = 3": 4,
			"SELECT count(*) FROM events WHERE target IS NULL AND kind <> 1":                      3,
			"SELECT count(*) FROM epochs WHERE partition = 3":                                     1,
			"SELECT count(*) FROM epochs WHERE partition = 3 AND stream LIKE '1%'":                1,
		} {
			require.Equal(t, want, db.Count(t, query), query)
		}
	})
}
