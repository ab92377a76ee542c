package storetest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testLists(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("a user's current conversations by rising id", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		var want []string
		for range 7 {
			want = append(want, worker.Commit(t, worker.CreateGroup("bob", "g", "Alice"))[0].GetConversationId())
		}
		worker.Commit(t, worker.CreateDirect("zoe", "Alice"))
		want = append(want, string(conversation.DirectID("zoe", "Alice")))
		worker.Commit(t, worker.CreateGroup("bob", "without her"))
		worker.Commit(t, worker.Command(want[3], "Alice", Leave()))
		want = slices.Delete(want, 3, 4)
		slices.Sort(want)

		var got []*historyv1.Summary
		request := &historyv1.ListConversationsRequest{UserId: "Alice", Limit: 3}
		for {
			page, err := db.ListConversations(t.Context(), request)
			require.NoError(t, err)
			got = append(got, page.GetConversations()...)
			if !page.GetMore() {
				break
			}
			require.Len(t, page.GetConversations(), 3)
			request.After = got[len(got)-1].GetConversationId()
		}
		require.Len(t, got, len(want))
		for i, summary := range got {
			require.Equal(t, want[i], summary.GetConversationId())
			require.Equal(t, uint64(1), summary.GetHead())
			require.Equal(t, uint64(1), summary.GetJoinedSeq())
			require.Equal(t, "Alice", summary.GetCursor().GetUserId())
			require.Equal(t, uint32(2), summary.GetMembers())
			if summary.GetKind() == conversationv1.Kind_KIND_DIRECT {
				require.Equal(t, "zoe", summary.GetPeer())
				require.Empty(t, summary.GetName())
			} else {
				require.Empty(t, summary.GetPeer())
				require.Equal(t, "g", summary.GetName())
			}
		}
		none, err := db.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "nobody"})
		require.NoError(t, err)
		require.Empty(t, none.GetConversations())
	})

	t.Run("members by rising id, bytewise", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		id := worker.Commit(t, worker.CreateGroup("b", "g", "B", "a", "_", "-", "0", "gone"))[0].GetConversationId()
		worker.Commit(t, worker.Command(id, "gone", Leave()))
		var got []string
		request := &historyv1.ListMembersRequest{ConversationId: id, Viewer: "a", Limit: 2}
		for {
			page, err := db.ListMembers(t.Context(), request)
			require.NoError(t, err)
			for _, member := range page.GetMembers() {
				got = append(got, member.GetCursor().GetUserId())
				require.Equal(t, uint64(1), member.GetJoinedSeq())
			}
			if !page.GetMore() {
				break
			}
			request.After = got[len(got)-1]
		}
		require.Equal(t, []string{"-", "0", "B", "_", "a", "b"}, got)
	})

	t.Run("only current members may list members", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "bob", Leave()))
		for _, request := range []*historyv1.ListMembersRequest{
			{ConversationId: id, Viewer: "bob"},
			{ConversationId: id, Viewer: "stranger"},
			{ConversationId: "g00000000000000000000000000", Viewer: "alice"},
			{ConversationId: "g00000000000000000000000000"},
		} {
			_, err := db.ListMembers(t.Context(), request)
			require.ErrorIs(t, err, store.ErrNotFound)
		}
		all, err := db.ListMembers(t.Context(), &historyv1.ListMembersRequest{ConversationId: id})
		require.NoError(t, err)
		require.Len(t, all.GetMembers(), 1)
	})
}
