package storetest

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func cursor(id, user string, delivered uint64, deliveredMs int64, read uint64, readMs int64) *historyv1.CursorUpdate {
	return &historyv1.CursorUpdate{ConversationId: id, Cursor: &conversationv1.Cursor{
		UserId: user, DeliveredSeq: delivered, DeliveredTimeMs: deliveredMs, ReadSeq: read, ReadTimeMs: readMs,
	}}
}

func testCursors(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("each part only moves forward, together with its time", func(t *testing.T) {
		db, _, id := group(t, subject)
		for _, step := range []struct {
			updates []*historyv1.CursorUpdate
			want    *historyv1.CursorUpdate
		}{
			{[]*historyv1.CursorUpdate{cursor(id, "bob", 0, 1, 0, 1)}, cursor(id, "bob", 0, 0, 0, 0)},
			{[]*historyv1.CursorUpdate{cursor(id, "bob", 5, 100, 0, 0)}, cursor(id, "bob", 5, 100, 0, 0)},
			{[]*historyv1.CursorUpdate{cursor(id, "bob", 4, 200, 3, 200)}, cursor(id, "bob", 5, 100, 3, 200)},
			{[]*historyv1.CursorUpdate{cursor(id, "bob", 5, 300, 3, 300)}, cursor(id, "bob", 5, 100, 3, 200)},
			{[]*historyv1.CursorUpdate{cursor(id, "bob", 7, 400, 1, 400), cursor(id, "bob", 6, 401, 4, 401)}, cursor(id, "bob", 7, 400, 4, 401)},
		} {
			require.NoError(t, db.SaveCursors(t.Context(), step.updates))
			members, err := db.ListMembers(t.Context(), &historyv1.ListMembersRequest{ConversationId: id, After: "alice"})
			require.NoError(t, err)
			require.True(t, proto.Equal(step.want.GetCursor(), members.GetMembers()[0].GetCursor()), "%v", members)
		}
		states, err := db.Conversations(t.Context(), []string{id})
		require.NoError(t, err)
		require.Equal(t, uint64(7), states[0].GetMembers()[1].GetCursor().GetDeliveredSeq())
		list, err := db.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "bob"})
		require.NoError(t, err)
		require.Equal(t, uint64(4), list.GetConversations()[0].GetCursor().GetReadSeq())
	})

	t.Run("many cursors at once, from concurrent callers, in any order", func(t *testing.T) {
		db := subject.New(t)
		saveAtOnce(t, db)
	})
}

// saveAtOnce saves the same cursors concurrently in opposite orders, using the stores in turn.
func saveAtOnce(t *testing.T, stores ...store.Store) {
	t.Helper()
	worker := NewWorker(stores[0], 0, &Clock{})
	var ids []string
	for range 50 {
		ids = append(ids, worker.Commit(t, worker.CreateGroup("alice", "", "bob"))[0].GetConversationId())
	}
	var running sync.WaitGroup
	for g := range 8 {
		running.Go(func() {
			for round := range uint64(20) {
				var updates []*historyv1.CursorUpdate
				for i := range ids {
					if g%2 == 1 {
						i = len(ids) - 1 - i
					}
					updates = append(updates, cursor(ids[i], "alice", round+1, 1, 0, 0), cursor(ids[i], "bob", round+2, 1, round+1, 1))
				}
				require.NoError(t, stores[g%len(stores)].SaveCursors(t.Context(), updates))
			}
		})
	}
	running.Wait()
	states, err := stores[0].Conversations(t.Context(), ids)
	require.NoError(t, err)
	require.Len(t, states, 50)
	for _, state := range states {
		require.Equal(t, uint64(20), state.GetMembers()[0].GetCursor().GetDeliveredSeq())
		require.Equal(t, uint64(21), state.GetMembers()[1].GetCursor().GetDeliveredSeq())
		require.Equal(t, uint64(20), state.GetMembers()[1].GetCursor().GetReadSeq())
	}
}
