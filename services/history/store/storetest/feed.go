package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// readFeed reads from a position to the end, page by page.
func readFeed(t *testing.T, s store.Store, partition ids.Partition, after *historyv1.Position, limit int) (entries []*historyv1.FeedEntry, end *historyv1.Position) {
	t.Helper()
	for {
		page, err := s.ReadFeed(context.WithoutCancel(t.Context()), partition, after, limit)
		require.NoError(t, err)
		for _, entry := range page.GetEntries() {
			require.Positive(t, store.ComparePositions(entry.GetPosition(), after), "positions rise")
			after = entry.GetPosition()
		}
		entries = append(entries, page.GetEntries()...)
		if !page.GetMore() {
			return entries, page.GetWatermark()
		}
		require.LessOrEqual(t, len(page.GetEntries()), limit)
	}
}

// beginEpoch appends one event in a new epoch, at a sequence of a stream.
func beginEpoch(t *testing.T, w *Worker, stream string, sequence uint64, command *brokerv1.Command) {
	t.Helper()
	batch := w.Batch(w.Apply(t, command)...)
	batch.BeginEpoch, batch.Next.Stream, batch.Next.Sequence, batch.Sequences = true, stream, sequence, []uint64{sequence}
	_, err := w.Append(t.Context(), batch)
	require.NoError(t, err)
}

func at(w *Worker) *historyv1.Position {
	return &historyv1.Position{Epoch: w.Watermark.GetEpoch(), Sequence: w.Watermark.GetSequence()}
}

func requireFork(t *testing.T, s store.Store, asked, last *historyv1.Position) {
	t.Helper()
	_, err := s.ReadFeed(t.Context(), 3, asked, 10)
	var fork *store.ForkError
	require.ErrorAs(t, err, &fork)
	requireProto(t, &historyv1.Fork{Partition: 3, Asked: asked, Last: last}, fork.Fork)
}

func testFeed(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("events of all conversations by position, across epochs", func(t *testing.T) {
		db, worker, id := group(t, subject)
		other := worker.Commit(t, worker.CreateGroup("carol", "g"))[0].GetConversationId()
		for range 10 {
			worker.Commit(t, worker.Command(id, "alice", Message("m")), worker.Command(other, "carol", Message("m")))
		}
		worker.Commit(t) // moves the watermark over a refused command
		first := at(worker)
		beginEpoch(t, worker, "2", 5, worker.Command(id, "alice", Message("in another stream")))
		beginEpoch(t, worker, "2", 2, worker.Command(other, "carol", Message("after a lost tail")))
		NewWorker(db, 4, worker.clock).Commit(t, worker.CreateGroup("dave", "elsewhere"))

		all, end := readFeed(t, db, 3, nil, store.MaxPage)
		require.Len(t, all, 24)
		requireProto(t, at(worker), end)
		want := map[string][]string{}
		for _, entry := range all {
			event := entry.GetEvent()
			want[event.GetConversationId()] = append(want[event.GetConversationId()], event.GetCommandId())
		}
		for _, of := range []string{id, other} {
			for i, event := range VerifyLog(t, db, of) {
				require.Equal(t, want[of][i], event.GetCommandId(), "the order of the log")
			}
		}
		for _, limit := range []int{1, 5} {
			again, _ := readFeed(t, db, 3, nil, limit)
			require.Len(t, again, 24)
			for i := range all {
				requireProto(t, all[i], again[i])
			}
		}
		rest, _ := readFeed(t, db, 3, first, 10)
		require.Len(t, rest, 2, "what follows in later epochs")
		rest, _ = readFeed(t, db, 3, all[21].GetPosition(), 10)
		require.Len(t, rest, 2)
		none, end := readFeed(t, db, 3, end, 10)
		require.Empty(t, none)
		requireProto(t, at(worker), end)
		none, end = readFeed(t, db, 9, nil, 10)
		require.Empty(t, none)
		requireProto(t, &historyv1.Position{}, end)
	})

	t.Run("a position that is not on the log is a fork", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		old := at(worker)
		requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch(), Sequence: old.GetSequence() + 1}, old)
		requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch() - 1, Sequence: 1}, nil)
		beginEpoch(t, worker, "2", 9, worker.Command(id, "alice", Message("m")))
		requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch(), Sequence: old.GetSequence() + 1}, old)
		requireFork(t, db, &historyv1.Position{Epoch: worker.Watermark.GetEpoch() + 1, Sequence: 1}, at(worker))
		if worker.Watermark.GetEpoch() > old.GetEpoch()+1 {
			requireFork(t, db, &historyv1.Position{Epoch: old.GetEpoch() + 1, Sequence: 1}, old)
		}
		rest, _ := readFeed(t, db, 3, old, 10)
		require.Len(t, rest, 1, "the end of an epoch is on the log")
	})

	t.Run("cursors of readers", func(t *testing.T) {
		db := subject.New(t)
		save := func(reader string, partition ids.Partition, epoch ids.Epoch, sequence uint64) {
			require.NoError(t, db.SaveFeedCursor(t.Context(), reader, &historyv1.FeedCursor{Partition: uint32(partition), Position: &historyv1.Position{Epoch: uint64(epoch), Sequence: sequence}}))
		}
		save("search", 2, 7, 70)
		save("search", 1, 5, 50)
		save("hooks", 1, 6, 60)
		save("search", 2, 7, 40)
		cursors, err := db.FeedCursors(t.Context(), "search")
		require.NoError(t, err)
		require.Len(t, cursors, 2)
		requireProto(t, &historyv1.FeedCursor{Partition: 1, Position: &historyv1.Position{Epoch: 5, Sequence: 50}}, cursors[0])
		requireProto(t, &historyv1.FeedCursor{Partition: 2, Position: &historyv1.Position{Epoch: 7, Sequence: 40}}, cursors[1])
	})

	t.Run("an append rings the bell of its partition", func(t *testing.T) {
		db, worker, id := group(t, subject)
		bell, other := db.FeedBell(3), db.FeedBell(4)
		select {
		case <-bell:
			require.Fail(t, "nothing was appended since")
		default:
		}
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		<-bell
		select {
		case <-other:
			require.Fail(t, "the bell of another partition")
		default:
		}
	})

	t.Run("a concurrent reader sees everything in order", func(t *testing.T) {
		db, worker, id := group(t, subject)
		follow(t, db, worker, id)
	})
}

// follow reads the feed while a worker appends and begins epochs, and compares the result with the log.
func follow(t *testing.T, s store.Store, worker *Worker, id string) {
	t.Helper()
	const batches = 60
	var running sync.WaitGroup
	running.Go(func() {
		for i := range batches {
			if i%20 == 19 {
				beginEpoch(t, worker, worker.Watermark.GetStream(), 1, worker.Command(id, "alice", Message("m")))
				continue
			}
			worker.Commit(t, worker.Command(id, "alice", Message("m")), worker.Command(id, "bob", Message("m")))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seen []uint64
	var after *historyv1.Position
	for want := 1 + 2*batches - batches/20; len(seen) < want; {
		bell := s.FeedBell(worker.Partition)
		page, err := s.ReadFeed(ctx, worker.Partition, after, 7)
		require.NoError(t, err)
		for _, entry := range page.GetEntries() {
			seen, after = append(seen, entry.GetEvent().GetSeq()), entry.GetPosition()
		}
		if len(page.GetEntries()) == 0 {
			select {
			case <-bell:
			case <-time.After(store.FeedRecheck):
			case <-ctx.Done():
				require.Fail(t, "the reader missed events")
			}
		}
	}
	running.Wait()
	for i, event := range VerifyLog(t, s, id) {
		require.Equal(t, event.GetSeq(), seen[i])
	}
}

// wakeAcross waits for the bell of one store while another store appends. The first notification may be lost, because the
// other store does not know yet that it is wanted.
func wakeAcross(t *testing.T, reader, writer store.Store) {
	t.Helper()
	worker := NewWorker(writer, 3, &Clock{})
	id := worker.Commit(t, worker.CreateGroup("alice", "our group", "bob"))[0].GetConversationId()
	deadline := time.Now().Add(time.Minute)
	for heard := false; !heard; {
		require.True(t, time.Now().Before(deadline), "no append rang the bell")
		bell := reader.FeedBell(3)
		worker.Commit(t, worker.Command(id, "alice", Message("m")))
		select {
		case <-bell:
			heard = true
		case <-time.After(50 * time.Millisecond):
		}
	}
	page, err := reader.ReadFeed(t.Context(), 3, nil, 1)
	require.NoError(t, err)
	require.True(t, page.GetMore())
	requireProto(t, at(worker), page.GetWatermark())
}
