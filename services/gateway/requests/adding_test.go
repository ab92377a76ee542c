package requests_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
)

// creates is a submit that creates a conversation with members beside ann.
func creates(t *testing.T, kind conversationv1.Kind, members ...string) *clientv1.Submit {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	create := &conversationv1.Create{Kind: kind, Members: members}
	if kind == conversationv1.Kind_KIND_GROUP {
		create.Name = "g"
	}
	return &clientv1.Submit{CommandId: id.String(), Body: &conversationv1.Body{Action: &conversationv1.Body_Create{Create: create}}}
}

func adds(t *testing.T, members ...string) *clientv1.Submit {
	t.Helper()
	id, err := uuid.NewV7()
	require.NoError(t, err)
	return &clientv1.Submit{CommandId: id.String(), ConversationId: groupID, Body: &conversationv1.Body{
		Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}},
	}}
}

func busyAnn() *requests.Caller {
	return &requests.Caller{User: "ann", Commands: rate.NewLimiter(rate.Inf, 1), Adds: rate.NewLimiter(0, 10)}
}

// Every kind that begins memberships of others is limited: a new one must say whom it adds.
func TestEveryKindThatBeginsMembershipsSaysWhomItAdds(t *testing.T) {
	bodies := map[string]*conversationv1.Body{
		"create":      {Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Members: []string{"bob"}}}},
		"add_members": {Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}},
	}
	for name, body := range bodies {
		require.Equal(t, []string{"bob"}, conversation.Adds(body), name)
	}
	require.Empty(t, conversation.Adds(hello().GetBody()))
	require.Empty(t, conversation.Adds(&conversationv1.Body{}))
}

// Adding costs one for the command and one for each member, whatever the number of commands.
func TestAddingIsLimitedByTheNumberOfMembers(t *testing.T) {
	s, caller := limited(t, requests.Adding{}), busyAnn()
	require.Nil(t, s.Submit(t.Context(), caller, 1, creates(t, conversationv1.Kind_KIND_GROUP, "a", "b", "c", "d"), &waiter{}))
	refused := s.Submit(t.Context(), caller, 2, adds(t, "a", "b", "c", "d", "e"), &waiter{})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode())
	require.GreaterOrEqual(t, refused.GetRetryAfterMs(), uint32(1000))
	require.Nil(t, s.Submit(t.Context(), caller, 3, adds(t, "a", "b", "c", "d"), &waiter{}), "a refused command takes nothing from the allowance")
	require.NotNil(t, s.Submit(t.Context(), caller, 4, creates(t, conversationv1.Kind_KIND_DIRECT, "zoe"), &waiter{}))
	require.Nil(t, s.Submit(t.Context(), caller, 5, hello(), &waiter{}), "messages are not limited by it")
	require.InDelta(t, 2, testutil.ToFloat64(s.metrics.Limits[metrics.LimitAddRate]), 0)
	require.Len(t, s.submitted, 3)
}

// The largest group that the protocol allows can be created at any rate.
func TestTheLargestGroupFitsTheAllowance(t *testing.T) {
	members := make([]string, protocol.MaxMembers-1)
	for i := range members {
		members[i] = fmt.Sprint("user-", i)
	}
	s, caller := limited(t, requests.Adding{}), busyAnn()
	caller.Adds = requests.AddLimiter(0.1)
	require.Nil(t, s.Submit(t.Context(), caller, 1, creates(t, conversationv1.Kind_KIND_GROUP, members...), &waiter{}))
	require.False(t, caller.Idle())
}

// With the policy "server" users add nobody, not even to a direct conversation. A group of their own is theirs.
func TestUsersAddNobodyIfOnlyServicesMay(t *testing.T) {
	s := limited(t, requests.Adding{Policy: requests.AddServer})
	for name, submit := range map[string]*clientv1.Submit{
		"a group": creates(t, conversationv1.Kind_KIND_GROUP, "bob"), "a direct conversation": creates(t, conversationv1.Kind_KIND_DIRECT, "bob"), "later": adds(t, "bob"),
	} {
		refused := s.Submit(t.Context(), busyAnn(), 1, submit, &waiter{})
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, refused.GetCode(), name)
	}
	require.Nil(t, s.Submit(t.Context(), busyAnn(), 1, creates(t, conversationv1.Kind_KIND_GROUP), &waiter{}))
	require.Len(t, s.submitted, 1)
}

// Nobody becomes a member of more conversations than the limit: neither those who are added nor the creator.
func TestNobodyIsAMemberOfTooManyConversations(t *testing.T) {
	s := limited(t, requests.Adding{MaxConversations: 5})
	s.history.counts = []*historyv1.MembershipCount{{UserId: "full", Conversations: 5}, {UserId: "almost", Conversations: 4}}
	refused := s.Submit(t.Context(), busyAnn(), 1, adds(t, "bob", "full"), &waiter{})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_LIMIT, refused.GetCode())
	require.Contains(t, refused.GetMessage(), "full")
	require.Nil(t, s.Submit(t.Context(), busyAnn(), 2, adds(t, "almost"), &waiter{}))
	asked := len(s.history.counted)
	refused = s.Submit(t.Context(), busyAnn(), 3, adds(t, "almost"), &waiter{})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_LIMIT, refused.GetCode(), "the command under way counts")
	require.Len(t, s.history.counted, asked, "a count is remembered")
	require.InDelta(t, asked, testutil.ToFloat64(s.metrics.Reads[metrics.ReadCounts]), 0)
	s.history.counts = []*historyv1.MembershipCount{{UserId: "ann", Conversations: 5}}
	refused = s.Submit(t.Context(), busyAnn(), 4, creates(t, conversationv1.Kind_KIND_GROUP), &waiter{})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_LIMIT, refused.GetCode())
	require.Contains(t, refused.GetMessage(), "you are")
	require.Nil(t, s.Submit(t.Context(), busyAnn(), 5, hello(), &waiter{}))
	require.InDelta(t, 3, testutil.ToFloat64(s.metrics.Limits[metrics.LimitConversations]), 0)
}

// While the history service is unavailable, chat goes on without this limit.
func TestWithoutTheHistoryServiceMembersAreAdded(t *testing.T) {
	s := limited(t, requests.Adding{MaxConversations: 5})
	s.history.err = errors.New("away")
	require.Nil(t, s.Submit(t.Context(), busyAnn(), 1, adds(t, "bob"), &waiter{}))
}

// Requests that read the history are limited by user, whatever the number of the user's connections.
func TestReadsAreLimitedByUser(t *testing.T) {
	s := limited(t, requests.Adding{})
	s.history.list = &historyv1.ListConversationsResponse{}
	caller := &requests.Caller{User: "ann", Reads: rate.NewLimiter(0, 2)}
	request, refused := s.Parse(listConversations(&clientv1.ListConversations{}))
	require.Nil(t, refused)
	for range 2 {
		_, err := request.Do(t.Context(), caller, requests.Bounds{Bytes: 1000})
		require.NoError(t, err)
	}
	_, err := request.Do(t.Context(), caller, requests.Bounds{Bytes: 1000})
	refused, unexpected := requests.Refusal(err)
	require.False(t, unexpected)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode())
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Limits[metrics.LimitReadRate]), 0)
}
