package storetest

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
)

func testMemberships(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("the newest membership of each conversation", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		create := func() string { return worker.Commit(t, worker.CreateGroup("alice", "g", "bob"))[0].GetConversationId() }
		present, ended, again, never := create(), create(), create(), worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
		worker.Commit(t, worker.Command(ended, "alice", Message("hello")), worker.Command(ended, "bob", Leave()))
		worker.Commit(t, worker.Command(again, "bob", Leave()), worker.Command(again, "alice", Add("bob")))
		found, err := db.FindMemberships(t.Context(), &historyv1.FindMembershipsRequest{
			UserId: "bob", ConversationIds: []string{present, ended, again, never, "g00000000000000000000000000"},
		})
		require.NoError(t, err)
		want := []*historyv1.NewestMembership{
			{ConversationId: present, JoinedSeq: 1}, {ConversationId: ended, JoinedSeq: 1, LeftSeq: 3}, {ConversationId: again, JoinedSeq: 3},
		}
		byID := func(a, b *historyv1.NewestMembership) int {
			return cmp.Compare(a.GetConversationId(), b.GetConversationId())
		}
		slices.SortFunc(want, byID)
		slices.SortFunc(found, byID)
		require.True(t, proto.Equal(&historyv1.FindMembershipsResponse{Memberships: want}, &historyv1.FindMembershipsResponse{Memberships: found}), "%v", found)
		found, err = db.FindMemberships(t.Context(), &historyv1.FindMembershipsRequest{UserId: "bob"})
		require.NoError(t, err)
		require.Empty(t, found)
	})

	t.Run("the number of present memberships", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		var first string
		for range 3 {
			first = worker.Commit(t, worker.CreateGroup("alice", "g", "bob"))[0].GetConversationId()
		}
		worker.Commit(t, worker.Command(first, "bob", Leave()))
		counts, err := db.CountMemberships(t.Context(), []string{"alice", "bob", "nobody"})
		require.NoError(t, err)
		got := map[ids.User]uint64{}
		for _, c := range counts {
			got[ids.User(c.GetUserId())] = c.GetConversations()
		}
		require.Equal(t, map[ids.User]uint64{"alice": 3, "bob": 2}, got)
	})

	t.Run("memberships that ended come with the named conversations", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		create := func() string { return worker.Commit(t, worker.CreateGroup("alice", "g", "bob"))[0].GetConversationId() }
		one, two, lasts := create(), create(), create()
		worker.Commit(t, worker.Command(one, "bob", Leave()), worker.Command(two, "bob", Leave()))
		since := worker.Commit(t, worker.Command(one, "alice", Add("bob")))[0].GetTimeMs()
		worker.Commit(t, worker.Command(one, "bob", Leave()), worker.Command(one, "alice", Add("bob")), worker.Command(one, "alice", Add("carol")))
		worker.Commit(t, worker.Command(one, "bob", Leave()), worker.Command(one, "carol", Leave()), worker.Command(one, "alice", Add("bob")))
		list := func(since int64, conversations ...string) *historyv1.ListConversationsResponse {
			answer, err := db.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "bob", ConversationIds: conversations, EndedSinceMs: since})
			require.NoError(t, err)
			return answer
		}
		require.Empty(t, list(0, one, two, lasts).GetEnded())
		require.Empty(t, list(since).GetEnded(), "no conversation is named")
		answer := list(since, one, two, lasts)
		require.Len(t, answer.GetConversations(), 2, "bob is a member of two")
		want := []*historyv1.Membership{{ConversationId: one, JoinedSeq: 3, LeftSeq: 4}, {ConversationId: one, JoinedSeq: 5, LeftSeq: 7}}
		require.True(t, proto.Equal(&historyv1.ListConversationsResponse{Ended: want}, &historyv1.ListConversationsResponse{Ended: answer.GetEnded()}), "%v", answer.GetEnded())
		require.Len(t, list(1, one, two, lasts).GetEnded(), 4)
		require.Len(t, list(1, two).GetEnded(), 1)
		require.Empty(t, list(1, lasts).GetEnded())
	})

	t.Run("only the named conversations are listed", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 0, &Clock{})
		var all []string
		for range 4 {
			all = append(all, worker.Commit(t, worker.CreateGroup("alice", "g", "bob"))[0].GetConversationId())
		}
		slices.Sort(all)
		worker.Commit(t, worker.Command(all[1], "bob", Leave()))
		list, err := db.ListConversations(t.Context(), &historyv1.ListConversationsRequest{
			UserId: "bob", ConversationIds: []string{all[3], all[1], all[2], "g00000000000000000000000000"},
		})
		require.NoError(t, err)
		require.False(t, list.GetMore())
		require.Len(t, list.GetConversations(), 2)
		require.Equal(t, all[2], list.GetConversations()[0].GetConversationId())
		require.Equal(t, all[3], list.GetConversations()[1].GetConversationId())
		require.Equal(t, uint32(2), list.GetConversations()[0].GetMembers())
	})
}
