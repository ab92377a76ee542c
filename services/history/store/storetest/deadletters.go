package storetest

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// putAside appends a batch of dead letters to a partition.
func putAside(t *testing.T, worker *Worker, stream string, letters ...*historyv1.DeadLetter) {
	t.Helper()
	batch := worker.Batch()
	batch.BeginEpoch = stream != worker.Watermark.GetStream()
	batch.Next.Stream, batch.DeadLetters = stream, letters
	_, err := worker.Append(t.Context(), batch)
	require.NoError(t, err)
}

// deadLetters lists all dead letters, page by page.
func deadLetters(t *testing.T, s store.Store, request *historyv1.ListDeadLettersRequest) []*historyv1.StoredDeadLetter {
	t.Helper()
	var all []*historyv1.StoredDeadLetter
	for {
		page, err := s.DeadLetters(t.Context(), request)
		require.NoError(t, err)
		all = append(all, page.GetDeadLetters()...)
		if !page.GetMore() {
			return all
		}
		require.Len(t, page.GetDeadLetters(), store.Limit(request.GetLimit()))
		request.After = all[len(all)-1].GetDeadLetterId()
	}
}

func testDeadLetters(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("they are listed by rising id without payloads, read with them, and dropped for good", func(t *testing.T) {
		db := subject.New(t)
		const early, late = "999", "1790000000000000000"
		begun := time.Now().UnixMilli()
		payload := bytes.Repeat([]byte{0xff, 0}, 300)
		for _, p := range []uint32{11, 2} {
			worker := NewWorker(db, ids.Partition(p), &Clock{})
			putAside(t, worker, late, &historyv1.DeadLetter{Sequence: 10, Reason: "ten"}, &historyv1.DeadLetter{Sequence: 9, Reason: "nine", Payload: payload})
			putAside(t, worker, early, &historyv1.DeadLetter{Sequence: 1 << 62, Reason: "of another stream"})
		}
		all := deadLetters(t, db, &historyv1.ListDeadLettersRequest{Limit: 2})
		var ids []string
		for _, letter := range all {
			ids = append(ids, letter.GetDeadLetterId())
			require.Empty(t, letter.GetLetter().GetPayload())
			// The times come from the store's clock, on the same machine; a database rounds them.
			require.InDelta(t, begun, letter.GetTimeMs(), float64(time.Hour.Milliseconds()))
		}
		require.Equal(t, []string{
			"0002-1790000000000000000-0000000000000000009", "0002-1790000000000000000-0000000000000000010", "0002-999-4611686018427387904",
			"0011-1790000000000000000-0000000000000000009", "0011-1790000000000000000-0000000000000000010", "0011-999-4611686018427387904",
		}, ids)
		require.True(t, slices.IsSorted(ids))
		nine := all[3]
		require.Equal(t, "nine", nine.GetLetter().GetReason())
		require.Equal(t, uint64(9), nine.GetLetter().GetSequence())
		require.Equal(t, uint32(11), nine.GetPartition())
		require.Equal(t, late, nine.GetStream())
		require.Equal(t, uint64(600), nine.GetPayloadBytes())
		require.Zero(t, all[4].GetPayloadBytes())

		key, ok := store.ParseDeadLetterID(nine.GetDeadLetterId())
		require.True(t, ok)
		whole, err := db.DeadLetter(t.Context(), key)
		require.NoError(t, err)
		require.Equal(t, payload, whole.GetLetter().GetPayload())
		whole.Letter.Payload = nil
		require.Equal(t, nine.String(), whole.String())

		require.NoError(t, db.DropDeadLetter(t.Context(), key))
		require.ErrorIs(t, db.DropDeadLetter(t.Context(), key), store.ErrNoDeadLetter)
		_, err = db.DeadLetter(t.Context(), key)
		require.ErrorIs(t, err, store.ErrNoDeadLetter)
		require.Len(t, deadLetters(t, db, &historyv1.ListDeadLettersRequest{}), 5)
	})

	t.Run("those of one partition", func(t *testing.T) {
		db := subject.New(t)
		for p := range ids.Partition(3) {
			putAside(t, NewWorker(db, p, &Clock{}), "1", &historyv1.DeadLetter{Sequence: 1}, &historyv1.DeadLetter{Sequence: 2}, &historyv1.DeadLetter{Sequence: 3})
		}
		for p := range uint32(3) {
			letters := deadLetters(t, db, &historyv1.ListDeadLettersRequest{Partition: &p, Limit: 1})
			require.Len(t, letters, 3)
			for i, letter := range letters {
				require.Equal(t, p, letter.GetPartition())
				require.Equal(t, uint64(i+1), letter.GetLetter().GetSequence())
			}
		}
		one := uint32(1)
		for after, want := range map[string]int{"0000-1-0000000000000000002": 3, "0001-1-0000000000000000001": 2, "0002-1-0000000000000000001": 0} {
			require.Len(t, deadLetters(t, db, &historyv1.ListDeadLettersRequest{Partition: &one, After: after}), want, after)
		}
	})

	t.Run("a second dead letter of the same command replaces the first", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		putAside(t, worker, "1", &historyv1.DeadLetter{Sequence: 1, Reason: "first"})
		putAside(t, worker, "1", &historyv1.DeadLetter{Sequence: 1, Reason: "again", Payload: []byte("x")})
		letters := deadLetters(t, db, &historyv1.ListDeadLettersRequest{})
		require.Len(t, letters, 1)
		require.Equal(t, "again", letters[0].GetLetter().GetReason())
		require.Equal(t, uint64(1), letters[0].GetPayloadBytes())
	})
}
