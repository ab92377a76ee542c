package storetest

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// group makes a store, a worker and a group with the members alice and bob.
func group(t *testing.T, subject Subject) (*Database, *Worker, string) {
	t.Helper()
	db := subject.New(t)
	worker := NewWorker(db, 3, &Clock{})
	created := worker.Commit(t, worker.CreateGroup("alice", "our group", "bob"))
	return db, worker, created[0].GetConversationId()
}

func requireWatermark(t *testing.T, s store.Store, partition ids.Partition, want *historyv1.Watermark) {
	t.Helper()
	present, err := s.Watermark(t.Context(), partition)
	require.NoError(t, err)
	require.True(t, proto.Equal(want, present), "the watermark is %v, not %v", present, want)
}

func requireEvents(t *testing.T, want, got []*conversationv1.Event) {
	t.Helper()
	require.Len(t, got, len(want))
	for i := range want {
		require.True(t, proto.Equal(want[i], got[i]), "event %d is %v, not %v", i, got[i], want[i])
	}
}

func testAppend(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("appended events are read back unchanged", func(t *testing.T) {
		db, worker, id := group(t, subject)
		want := ReadAll(t, db, id)
		for i := range 30 { // one batch with events of several conversations, interleaved
			worker.Commit(t, worker.CreateGroup("carol", "", "dave"))
			message := worker.Command(id, []string{"alice", "bob"}[i%2], &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
				Text: "grüße\n\t🙂", ReplyTo: uint64(i % 2 * 2), Metadata: map[string]string{"a": "1", "b": ""},
			}}})
			want = append(want, worker.Commit(t, message, worker.Command(id, "bob", Rename("x")))...)
		}
		requireEvents(t, want, VerifyLog(t, db, id))
		requireWatermark(t, db, 3, worker.Watermark)
	})

	t.Run("a partition begins without a watermark", func(t *testing.T) {
		requireWatermark(t, subject.New(t), Partitions-1, &historyv1.Watermark{})
	})

	t.Run("a batch on a watermark that moved is refused, duplicates or not", func(t *testing.T) {
		db, worker, id := group(t, subject)
		zombie := worker.Fork()
		same := worker.Command(id, "bob", Message("same"))
		worker.Commit(t, same)
		for name, expected := range map[string]*historyv1.Watermark{
			"sequence": zombie.Watermark,
			"stream":   {Stream: "1", Sequence: worker.Watermark.GetSequence(), Epoch: worker.Watermark.GetEpoch()},
			"epoch":    {Stream: worker.Watermark.GetStream(), Sequence: worker.Watermark.GetSequence(), Epoch: worker.Watermark.GetEpoch() - 1},
			"none":     {},
		} {
			batch := zombie.Batch(zombie.Fork().Apply(t, same)...)
			batch.Expected, batch.Next.Sequence, batch.Sequences = expected, worker.Watermark.GetSequence()+1, []uint64{worker.Watermark.GetSequence() + 1}
			batch.BeginEpoch = true
			_, err := db.Append(t.Context(), batch)
			var moved *store.WatermarkError
			require.ErrorAs(t, err, &moved, name)
			require.True(t, proto.Equal(worker.Watermark, moved.Present), "the error contains the current watermark")
		}
		require.Len(t, ReadAll(t, db, id), 2)
		requireWatermark(t, db, 3, worker.Watermark)
	})

	t.Run("of appends that race on one watermark exactly one wins", func(t *testing.T) {
		db, worker, id := group(t, subject)
		race(t, worker, id, db)
	})

	t.Run("all commands that were committed before come back, and nothing is committed", func(t *testing.T) {
		db, worker, id := group(t, subject)
		one, two := worker.Command(id, "alice", Message("1")), worker.Command(id, "bob", Message("2"))
		first := worker.Commit(t, one, two)
		// With another sender, the same id is another command.
		other := worker.Command(id, "bob", Message("3"))
		other.CommandId = one.GetCommandId()
		batch := worker.Batch(worker.Fork().Apply(t, two, other, one)...)
		duplicates, err := worker.Append(t.Context(), batch)
		require.NoError(t, err)
		require.Len(t, duplicates, 2)
		require.Equal(t, []uint32{0, 2}, []uint32{duplicates[0].GetIndex(), duplicates[1].GetIndex()})
		requireEvents(t, []*conversationv1.Event{first[1], first[0]}, []*conversationv1.Event{duplicates[0].GetFirst(), duplicates[1].GetFirst()})
		requireWatermark(t, db, 3, worker.Watermark)
		require.Len(t, ReadAll(t, db, id), 3)

		worker.Commit(t, other)
		require.Len(t, VerifyLog(t, db, id), 4)
	})

	t.Run("a create that is repeated comes back as a duplicate", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		create := worker.CreateGroup("alice", "g")
		stale := worker.Fork()
		first := worker.Commit(t, create)
		stale.Watermark = worker.Watermark
		duplicates, err := stale.Append(t.Context(), stale.Batch(stale.Apply(t, create)...))
		require.NoError(t, err)
		require.Len(t, duplicates, 1)
		requireEvents(t, first, []*conversationv1.Event{duplicates[0].GetFirst()})
	})

	t.Run("an event must continue its conversation's head", func(t *testing.T) {
		db, worker, id := group(t, subject)
		stale := worker.Fork()
		worker.Commit(t, worker.Command(id, "alice", Message("first")))
		stale.Watermark = worker.Watermark
		_, err := stale.Append(t.Context(), stale.Batch(stale.Apply(t, stale.Command(id, "bob", Message("same seq")))...))
		requireTaken(t, err, ids.Conversation(id), 2, 2)

		ahead := worker.Fork()
		ahead.Apply(t, ahead.Command(id, "alice", Message("never appended")))
		_, err = ahead.Append(t.Context(), ahead.Batch(ahead.Apply(t, ahead.Command(id, "alice", Message("leaves a hole")))...))
		requireTaken(t, err, ids.Conversation(id), 4, 2)

		elsewhere := worker.Fork()
		created := elsewhere.Apply(t, elsewhere.CreateGroup("eve", "never appended"))[0].GetConversationId()
		_, err = elsewhere.Append(t.Context(), elsewhere.Batch(elsewhere.Apply(t, elsewhere.Command(created, "eve", Message("of nothing")))...))
		requireTaken(t, err, ids.Conversation(created), 2, 0)

		// Another command creates the same conversation a second time.
		direct := NewWorker(db, 7, worker.clock)
		met := direct.Commit(t, direct.CreateDirect("alice", "bob"))[0].GetConversationId()
		again := NewWorker(db, 7, worker.clock)
		again.Watermark = direct.Watermark
		_, err = again.Append(t.Context(), again.Batch(again.Apply(t, again.CreateDirect("bob", "alice"))...))
		requireTaken(t, err, ids.Conversation(met), 1, 1)

		require.Len(t, VerifyLog(t, db, id), 2)
		requireWatermark(t, db, 3, worker.Watermark)
		requireWatermark(t, db, 7, direct.Watermark)
	})

	t.Run("a batch that contradicts itself is invalid", func(t *testing.T) {
		db, worker, id := group(t, subject)
		var invalid *store.InvalidError
		one := worker.Command(id, "alice", Message("1"))
		_, err := db.Append(t.Context(), worker.Batch(worker.Fork().Apply(t, one, one)...))
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "events[1].command_id", invalid.Field)

		events := worker.Fork().Apply(t, one, worker.Command(id, "alice", Message("2")), worker.Command(id, "alice", Message("3")))
		_, err = db.Append(t.Context(), worker.Batch(events[0], events[2]))
		require.ErrorAs(t, err, &invalid)
		require.Equal(t, "events[1].seq", invalid.Field)
		require.Len(t, ReadAll(t, db, id), 1)
	})

	t.Run("a batch without events moves the watermark and keeps dead letters", func(t *testing.T) {
		db, worker, _ := group(t, subject)
		batch := worker.Batch()
		batch.DeadLetters = []*historyv1.DeadLetter{{Sequence: 2, Reason: "undecodable", Payload: []byte{0xff}}, {Sequence: 3, Reason: "empty"}}
		_, err := worker.Append(t.Context(), batch)
		require.NoError(t, err)
		require.Len(t, deadLetters(t, db, &historyv1.ListDeadLettersRequest{}), 2)

		// After the stream has lost its last messages, the position goes back in a new epoch, and the same commands may
		// come again.
		back := &historyv1.AppendRequest{Partition: 3, Expected: worker.Watermark, Next: &historyv1.Watermark{Stream: "1790000000000000000", Sequence: 1}, BeginEpoch: true}
		_, err = worker.Append(t.Context(), back)
		require.NoError(t, err)
		requireWatermark(t, db, 3, worker.Watermark)
		require.Equal(t, uint64(1), worker.Watermark.GetSequence())
		again := worker.Batch()
		again.DeadLetters = batch.GetDeadLetters()
		_, err = worker.Append(t.Context(), again)
		require.NoError(t, err)
		require.Len(t, deadLetters(t, db, &historyv1.ListDeadLettersRequest{}), 2)
	})

	t.Run("refused appends do not affect concurrent ones", func(t *testing.T) {
		db := subject.New(t)
		var running sync.WaitGroup
		for p := range ids.Partition(uint32(Partitions)) {
			worker := NewWorker(db, p, &Clock{n: int64(p) * 1_000_000})
			running.Go(func() {
				id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
				for range 20 {
					events := worker.Commit(t, worker.Command(id, "alice", Message("good")))
					// Three kinds of refusal, each at a different point of the transaction.
					stale := worker.Fork()
					stale.Watermark = &historyv1.Watermark{Stream: worker.Watermark.GetStream(), Sequence: 1, Epoch: 1}
					_, err := stale.Append(t.Context(), stale.Batch())
					var moved *store.WatermarkError
					require.ErrorAs(t, err, &moved)
					again := worker.Batch(proto.CloneOf(events[0]))
					again.Events[0].Seq++
					response, err := db.Append(t.Context(), again)
					require.NoError(t, err)
					require.Len(t, response.GetDuplicates(), 1)
					ahead := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("x")), worker.Command(id, "alice", Message("y")))[1])
					_, err = db.Append(t.Context(), ahead)
					require.ErrorIs(t, err, store.ErrSeqTaken)
				}
				require.Len(t, VerifyLog(t, db, id), 21)
			})
		}
		running.Wait()
	})
}

// race lets workers with the same state append concurrently, using the stores in turn.
func race(t *testing.T, worker *Worker, id string, stores ...store.Store) {
	t.Helper()
	for range 5 {
		const racers = 8
		var wins, losses int
		var mu sync.Mutex
		var running sync.WaitGroup
		var won *Worker
		for r := range racers {
			racer := worker.Fork()
			racer.Store = stores[r%len(stores)]
			batch := racer.Batch(racer.Apply(t, racer.Command(id, "alice", Message("mine")))...)
			running.Go(func() {
				_, err := racer.Append(t.Context(), batch)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					wins, won = wins+1, racer
					return
				}
				var moved *store.WatermarkError
				require.ErrorAs(t, err, &moved)
				losses++
			})
		}
		running.Wait()
		require.Equal(t, 1, wins)
		require.Equal(t, racers-1, losses)
		worker = won
	}
	require.Len(t, VerifyLog(t, stores[0], id), 6)
}

// requireTaken checks that an error names the conversation, the seq that does not continue its log, and its head.
func requireTaken(t *testing.T, err error, id ids.Conversation, first, head ids.Seq) {
	t.Helper()
	require.ErrorIs(t, err, store.ErrSeqTaken)
	var taken *store.SeqTakenError
	require.ErrorAs(t, err, &taken)
	require.Equal(t, store.SeqTakenError{ConversationID: id, First: first, Head: head}, *taken)
	require.ErrorContains(t, err, "runnel admin conversations verify "+string(id))
}
