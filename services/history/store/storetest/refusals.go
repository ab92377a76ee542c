package storetest

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// refusalOf returns the refusal of a command at a time of the stream.
func refusalOf(w *Worker, id, sender string, attempt uint32, timeMs int64) *historyv1.Refusal {
	return &historyv1.Refusal{
		Command: &historyv1.CommandKey{ConversationId: id, Sender: sender, CommandId: w.clock.CommandID()}, Attempt: attempt,
		Commitment: bytes.Repeat([]byte{7}, 32), TimeMs: timeMs,
		Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Message: "nein", Field: "body"},
	}
}

func refuseAt(t *testing.T, w *Worker, timeMs int64, refusals ...*historyv1.Refusal) {
	t.Helper()
	batch := w.Batch()
	batch.Refusals, batch.Next.TimeNs = refusals, timeMs*1_000_000
	_, err := w.Append(t.Context(), batch)
	require.NoError(t, err)
}

func listRefusals(t *testing.T, s store.Store, limit uint32) (all []*historyv1.Refusal) {
	t.Helper()
	request := &historyv1.ListRefusalsRequest{Partition: 3, Limit: limit}
	for {
		page, err := s.Refusals(t.Context(), request)
		require.NoError(t, err)
		all = append(all, page.GetRefusals()...)
		if !page.GetMore() {
			return all
		}
		request.After = all[len(all)-1].GetCommand()
	}
}

func testRefusals(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("they are stored with the batch and listed by key", func(t *testing.T) {
		db, worker, id := group(t, subject)
		var want []*historyv1.Refusal
		for _, sender := range []string{"eve", "bob", "eve", "alice", "bob"} {
			want = append(want, refusalOf(worker, id, sender, 1, firstMs))
		}
		refuseAt(t, worker, firstMs, want...)
		other := NewWorker(db, 4, worker.clock)
		refuseAt(t, other, firstMs, refusalOf(other, id, "eve", 0, firstMs))
		slices.SortFunc(want, func(a, b *historyv1.Refusal) int {
			return strings.Compare(a.GetCommand().GetSender()+a.GetCommand().GetCommandId(), b.GetCommand().GetSender()+b.GetCommand().GetCommandId())
		})
		got := listRefusals(t, db, 2)
		require.Len(t, got, len(want))
		for i := range want {
			requireProto(t, want[i], got[i])
		}
	})

	t.Run("the highest attempt stays", func(t *testing.T) {
		db, worker, id := group(t, subject)
		first := refusalOf(worker, id, "eve", 1, firstMs)
		refuseAt(t, worker, firstMs, first)
		for _, attempt := range []uint32{0, 1} {
			again := proto.CloneOf(first)
			again.Attempt, again.Error.Message = attempt, "lower or the same"
			refuseAt(t, worker, firstMs, again)
			requireProto(t, first, listRefusals(t, db, 0)[0])
		}
		higher := proto.CloneOf(first)
		higher.Attempt, higher.Error.Message = 2, "higher"
		refuseAt(t, worker, firstMs, higher)
		require.Len(t, listRefusals(t, db, 0), 1)
		requireProto(t, higher, listRefusals(t, db, 0)[0])
	})

	t.Run("the lifetime of a refusal that is answered again starts anew", func(t *testing.T) {
		db, worker, id := group(t, subject)
		first := refusalOf(worker, id, "eve", 0, firstMs)
		refuseAt(t, worker, firstMs, first)
		renewed := proto.CloneOf(first)
		renewed.TimeMs = firstMs + 5*60_000
		refuseAt(t, worker, renewed.GetTimeMs(), renewed)
		requireProto(t, renewed, listRefusals(t, db, 0)[0])

		// The refusal in the table has expired. The new refusal replaces it in the same append that removes expired ones.
		late := proto.CloneOf(first)
		late.TimeMs = renewed.GetTimeMs() + store.RefusalLifetimeMs + 1
		refuseAt(t, worker, late.GetTimeMs(), late)
		require.Len(t, listRefusals(t, db, 0), 1)
		requireProto(t, late, listRefusals(t, db, 0)[0])
	})

	t.Run("after ten minutes of stream time they are removed, a few at a time", func(t *testing.T) {
		db, worker, id := group(t, subject)
		var many []*historyv1.Refusal
		for range 150 {
			many = append(many, refusalOf(worker, id, "eve", 0, firstMs))
		}
		refuseAt(t, worker, firstMs, many...)
		refuseAt(t, worker, firstMs+store.RefusalLifetimeMs, refusalOf(worker, id, "eve", 0, firstMs+store.RefusalLifetimeMs))
		require.Len(t, listRefusals(t, db, 0), 151, "not a moment earlier")
		refuseAt(t, worker, firstMs+store.RefusalLifetimeMs+1)
		require.Len(t, listRefusals(t, db, 0), 151, "a batch without refusals costs nothing")
		refuseAt(t, worker, firstMs+store.RefusalLifetimeMs+1, refusalOf(worker, id, "eve", 0, firstMs+store.RefusalLifetimeMs+1))
		require.Len(t, listRefusals(t, db, 0), 51, "at most 101 at a time")
		refuseAt(t, worker, firstMs+store.RefusalLifetimeMs+1, refusalOf(worker, id, "eve", 0, firstMs+store.RefusalLifetimeMs+1))
		require.Len(t, listRefusals(t, db, 0), 3)
	})

	t.Run("a batch that is not committed stores none", func(t *testing.T) {
		db, worker, id := group(t, subject)
		zombie := worker.Fork()
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		batch := zombie.Batch()
		batch.Refusals = []*historyv1.Refusal{refusalOf(worker, id, "eve", 0, firstMs)}
		_, err := db.Append(t.Context(), batch)
		require.Error(t, err)
		require.Empty(t, listRefusals(t, db, 0))
	})
}
