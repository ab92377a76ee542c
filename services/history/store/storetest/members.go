package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func testMembers(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("the stored state equals the applied one", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Add("carol", "dave")), worker.Command(id, "bob", Leave()),
			worker.Command(id, "alice", Remove("dave")), worker.Command(id, "carol", Rename("new name")))
		worker.Commit(t, worker.Command(id, "alice", Add("bob")), worker.Command(id, "bob", Message("back")))
		// Joining, leaving and joining again in one batch.
		worker.Commit(t, worker.Command(id, "alice", Add("eve")), worker.Command(id, "eve", Leave()), worker.Command(id, "bob", Add("eve")))

		states, err := db.Conversations(t.Context(), []string{id, id, "g00000000000000000000000000"})
		require.NoError(t, err)
		require.Len(t, states, 1)
		want, got := worker.States[id], states[0]
		require.Equal(t, want.Kind, got.GetKind())
		require.Equal(t, want.Name, got.GetName())
		require.True(t, proto.Equal(&historyv1.SetName{
			Name: want.Name, Seq: uint64(want.NameSource.Seq), Sender: string(want.NameSource.Sender), TimeMs: want.NameSource.TimeMs,
		}, got.GetNameSource()), "%v", got.GetNameSource())
		require.Equal(t, want.Creator, ids.User(got.GetCreator()))
		require.Equal(t, want.Head, ids.Seq(got.GetHead()))
		require.Equal(t, want.HeadHash, got.GetHeadHash())
		members := map[ids.User]ids.Seq{}
		for _, member := range got.GetMembers() {
			members[ids.User(member.GetCursor().GetUserId())] = ids.Seq(member.GetJoinedSeq())
		}
		require.Equal(t, want.Members, members)
		removed := map[ids.User]ids.Seq{}
		for _, removal := range got.GetRemoved() {
			removed[ids.User(removal.GetUserId())] = ids.Seq(removal.GetSeq())
		}
		require.Equal(t, want.Removed, removed)
		require.Contains(t, removed, ids.User("dave"))
		requireMemberCount(t, db, id, "alice", len(want.Members))
	})

	t.Run("a conversation that all have left has a state without members", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Leave()), worker.Command(id, "bob", Leave()))
		states, err := db.Conversations(t.Context(), []string{id})
		require.NoError(t, err)
		require.Len(t, states, 1)
		require.Empty(t, states[0].GetMembers())
		require.Equal(t, uint64(3), states[0].GetHead())
	})

	t.Run("a create and all later events may share a batch", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		create := worker.CreateGroup("alice", "old", "bob")
		id := create.GetConversationId()
		worker.Commit(t, create, worker.Command(id, "bob", Rename("new")), worker.Command(id, "bob", Add("carol")), worker.Command(id, "bob", Leave()))
		states, err := db.Conversations(t.Context(), []string{id})
		require.NoError(t, err)
		require.Equal(t, "new", states[0].GetName())
		requireMemberCount(t, db, id, "alice", 2)
		require.Len(t, VerifyLog(t, db, id), 4)
	})

	t.Run("impossible memberships are refused", func(t *testing.T) {
		db, worker, id := group(t, subject)
		for name, effect := range map[string]*historyv1.Effect{
			"join twice":  {Effect: &historyv1.Effect_BeginMemberships{BeginMemberships: &historyv1.BeginMemberships{UserIds: []string{"bob"}}}},
			"leave twice": {Effect: &historyv1.Effect_EndMembership{EndMembership: &historyv1.EndMembership{UserId: "stranger"}}},
		} {
			batch := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("with a wrong effect")))...)
			batch.Effects = []*historyv1.Effect{effect}
			_, err := db.Append(t.Context(), batch)
			var invalid *store.InvalidError
			require.ErrorAs(t, err, &invalid, name)
		}
		require.Len(t, ReadAll(t, db, id), 1)
		requireMemberCount(t, db, id, "alice", 2)
	})

	t.Run("a large group", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		members := make([]string, 1999)
		for i := range members {
			members[i] = "user-" + string(rune('a'+i%26)) + "-" + itoa(i)
		}
		created := worker.Commit(t, worker.CreateGroup("alice", "large", members...))
		states, err := db.Conversations(t.Context(), []string{created[0].GetConversationId()})
		require.NoError(t, err)
		require.Len(t, states[0].GetMembers(), 2000)
	})

	t.Run("states that are too large together are refused, one is not", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		members := make([]string, 1999)
		for i := range members {
			members[i] = "user-" + itoa(i)
		}
		var ids []string
		var creates []*brokerv1.Command
		for range store.MaxStateMembers/2000 + 1 {
			create := worker.CreateGroup("alice", "large", members...)
			ids, creates = append(ids, create.GetConversationId()), append(creates, create)
		}
		worker.Commit(t, creates...)
		_, err := db.Conversations(t.Context(), ids)
		require.ErrorIs(t, err, store.ErrTooLarge)
		_, err = db.Conversations(t.Context(), ids[1:])
		require.NoError(t, err)
	})
}

func requireMemberCount(t *testing.T, s store.Store, id, user string, want int) {
	t.Helper()
	list, err := s.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: user})
	require.NoError(t, err)
	for _, summary := range list.GetConversations() {
		if summary.GetConversationId() == id {
			require.Equal(t, uint32(want), summary.GetMembers())
			return
		}
	}
	require.Fail(t, "the conversation is not in the user's list")
}
