package requests_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// The listed conversations are those of the caller, with every field of the store's answer.
func TestTheCallersConversationsAreListed(t *testing.T) {
	s := newStage(t, nil)
	s.history.list = &historyv1.ListConversationsResponse{More: true, Conversations: []*historyv1.Summary{{
		ConversationId: groupID, Kind: conversationv1.Kind_KIND_GROUP, Name: "lunch", Head: 9, JoinedSeq: 3, Members: 4, Peer: "bob",
		Cursor: &conversationv1.Cursor{UserId: "ann", ReadSeq: 8},
	}}}
	answered := s.answered(listConversations(&clientv1.ListConversations{After: groupID}), unbounded).GetConversations()
	protoEqual(t, &historyv1.ListConversationsRequest{UserId: "ann", After: groupID, Limit: protocol.DefaultListPage}, s.history.conversations)
	require.True(t, answered.GetMore())
	require.Len(t, answered.GetConversations(), 1)
	protoEqual(t, &clientv1.Conversation{
		ConversationId: groupID, Kind: conversationv1.Kind_KIND_GROUP, Name: "lunch", Head: 9, JoinedSeq: 3, Members: 4, Peer: "bob",
		Cursor: &conversationv1.Cursor{UserId: "ann", ReadSeq: 8},
	}, answered.GetConversations()[0])
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reads[metrics.ReadList]), 0)

	s.history.list = &historyv1.ListConversationsResponse{}
	answered = s.answered(listConversations(&clientv1.ListConversations{Limit: 7}), unbounded).GetConversations()
	require.Equal(t, uint32(7), s.history.conversations.GetLimit())
	require.Empty(t, answered.GetConversations())
	require.False(t, answered.GetMore())
}

// Members are listed with those cursors that the caller may see.
func TestMembersAreListedWithTheirCursors(t *testing.T) {
	s := newStage(t, nil)
	s.history.listed = &historyv1.ListMembersResponse{More: true, Members: []*historyv1.Member{
		{JoinedSeq: 1, Cursor: &conversationv1.Cursor{UserId: "bob", DeliveredSeq: 5, ReadSeq: 4}},
		{JoinedSeq: 2, Cursor: &conversationv1.Cursor{UserId: "cem"}},
	}}
	answered := s.answered(listMembers(&clientv1.ListMembers{ConversationId: groupID, After: "ann"}), unbounded).GetMembers()
	protoEqual(t, &historyv1.ListMembersRequest{
		ConversationId: groupID, Viewer: "ann", After: "ann", Limit: protocol.DefaultListPage,
	}, s.history.members)
	require.True(t, answered.GetMore())
	require.Len(t, answered.GetMembers(), 2)
	require.Equal(t, "bob", answered.GetMembers()[0].GetUserId())
	require.Equal(t, uint64(5), answered.GetMembers()[0].GetDeliveredSeq())
	require.Equal(t, "cem", answered.GetMembers()[1].GetUserId())
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reads[metrics.ReadMembers]), 0)

	s.answered(listMembers(&clientv1.ListMembers{ConversationId: groupID, Limit: 7}), unbounded)
	require.Equal(t, uint32(7), s.history.members.GetLimit())
}

// A page of a list ends at about its limit of bytes, and says that there is more. The first item always fits.
func TestListsAreBoundedInBytes(t *testing.T) {
	s := newStage(t, nil)
	s.history.list, s.history.listed = &historyv1.ListConversationsResponse{}, &historyv1.ListMembersResponse{}
	for range 10 {
		s.history.list.Conversations = append(s.history.list.Conversations, &historyv1.Summary{ConversationId: groupID, Name: strings.Repeat("n", 200)})
		s.history.listed.Members = append(s.history.listed.Members, &historyv1.Member{Cursor: &conversationv1.Cursor{UserId: strings.Repeat("u", 60)}})
	}
	conversations := s.answered(listConversations(&clientv1.ListConversations{}), 1000).GetConversations()
	require.Len(t, conversations.GetConversations(), 4)
	require.True(t, conversations.GetMore())
	members := s.answered(listMembers(&clientv1.ListMembers{ConversationId: groupID}), 200).GetMembers()
	require.Len(t, members.GetMembers(), 3)
	require.True(t, members.GetMore())
	require.Len(t, s.answered(listMembers(&clientv1.ListMembers{ConversationId: groupID}), 0).GetMembers().GetMembers(), 1)
	require.False(t, s.answered(listConversations(&clientv1.ListConversations{}), unbounded).GetConversations().GetMore())
}
