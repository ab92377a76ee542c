package shards_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/shards"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broken is a history service that fails.
type broken struct {
	historyv1.HistoryServiceClient

	err error
}

func (b broken) ListConversations(context.Context, *historyv1.ListConversationsRequest, ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	return &historyv1.ListConversationsResponse{Conversations: []*historyv1.Summary{{ConversationId: "g"}}}, b.err
}

func (b broken) Heads(_ context.Context, in *historyv1.HeadsRequest, _ ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	return &historyv1.HeadsResponse{Heads: []*historyv1.Head{{ConversationId: in.GetConversationIds()[0]}}}, b.err
}

func TestNumbersOfShards(t *testing.T) {
	_, err := shards.New(4)
	require.ErrorIs(t, err, shards.ErrShards)
	_, err = shards.New(1, broken{}, broken{})
	require.ErrorIs(t, err, shards.ErrShards)
	_, err = shards.New(2, broken{}, broken{})
	require.NoError(t, err)
}

// An answer without the part of a shard that failed would look as if its conversations did not exist.
func TestOneFailingShardFailsTheCall(t *testing.T) {
	away := status.Error(codes.Unavailable, "away")
	router, err := shards.New(16, broken{}, broken{err: away})
	require.NoError(t, err)
	_, err = router.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "ann"})
	require.ErrorIs(t, err, away)
	var failed, answered int
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if _, err := router.Heads(t.Context(), &historyv1.HeadsRequest{ConversationIds: []string{id}}); err != nil {
			require.Equal(t, codes.Unavailable, status.Code(err))
			failed++
		} else {
			answered++
		}
	}
	require.NotZero(t, failed)
	require.NotZero(t, answered, "conversations of the other shard are served")
	_, err = router.Heads(t.Context(), &historyv1.HeadsRequest{ConversationIds: []string{"a", "b", "c", "d", "e", "f", "g", "h"}})
	require.Equal(t, codes.Unavailable, status.Code(err))
}

// What cannot be routed says so, and asks no shard.
func TestUnsupportedCallsSaySo(t *testing.T) {
	router, err := shards.New(16, broken{}, broken{})
	require.NoError(t, err)
	for call, err := range map[string]error{
		"CompareMemberships": second(router.CompareMemberships(t.Context(), &historyv1.CompareMembershipsRequest{})),
		"ListDeadLetters":    second(router.ListDeadLetters(t.Context(), &historyv1.ListDeadLettersRequest{})),
		"GetDeadLetter":      second(router.GetDeadLetter(t.Context(), &historyv1.GetDeadLetterRequest{})),
		"DropDeadLetter":     second(router.DropDeadLetter(t.Context(), &historyv1.DropDeadLetterRequest{})),
	} {
		require.Equal(t, codes.Unimplemented, status.Code(err))
		require.ErrorContains(t, err, call)
	}
}

func second[A any](_ A, err error) error { return err }

// listed is a history service with a list of conversations, of which it returns the first ones.
type listed struct {
	historyv1.HistoryServiceClient

	ids   []string
	more  bool
	ended []*historyv1.Membership
}

func (l listed) ListConversations(context.Context, *historyv1.ListConversationsRequest, ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	answer := &historyv1.ListConversationsResponse{More: l.more, Ended: l.ended}
	for _, id := range l.ids {
		answer.Conversations = append(answer.Conversations, &historyv1.Summary{ConversationId: id})
	}
	return answer, nil
}

// Memberships that have ended come from all shards, in the order of one.
func TestEndedMembershipsAreMerged(t *testing.T) {
	ended := func(id string, joined uint64) *historyv1.Membership {
		return &historyv1.Membership{ConversationId: id, JoinedSeq: joined}
	}
	a2, a5, b1, c3 := ended("a", 2), ended("a", 5), ended("b", 1), ended("c", 3)
	router, err := shards.New(16, listed{ended: []*historyv1.Membership{b1}}, listed{ended: []*historyv1.Membership{a2, a5, c3}})
	require.NoError(t, err)
	page, err := router.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "ann", EndedSinceMs: 1})
	require.NoError(t, err)
	require.Equal(t, []*historyv1.Membership{a2, a5, b1, c3}, page.GetEnded())
}

// A merged page ends where a shard's page ends that has more: otherwise the next page would begin after conversations that nobody saw.
func TestAPageEndsWhereAShardHasMore(t *testing.T) {
	for _, c := range []struct {
		one, other listed
		want       []string
		more       bool
	}{
		{listed{ids: []string{"a", "c"}, more: true}, listed{ids: []string{"b", "d", "e"}}, []string{"a", "b", "c"}, true},
		{listed{ids: []string{"a", "c"}, more: true}, listed{ids: []string{"b"}, more: true}, []string{"a", "b"}, true},
		{listed{ids: []string{"a", "c"}}, listed{ids: []string{"b", "d"}}, []string{"a", "b", "c", "d"}, false},
		{listed{}, listed{ids: []string{"b"}, more: true}, []string{"b"}, true},
	} {
		router, err := shards.New(16, c.one, c.other)
		require.NoError(t, err)
		page, err := router.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "ann"})
		require.NoError(t, err)
		var got []string
		for _, summary := range page.GetConversations() {
			got = append(got, summary.GetConversationId())
		}
		require.Equal(t, c.want, got)
		require.Equal(t, c.more, page.GetMore())
	}
}
