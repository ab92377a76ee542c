package shards

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// ListConversations implements historyv1.HistoryServiceClient. Every shard is asked for a whole page; the page of all is the beginning
// of the merged list.
func (r *Router) ListConversations(ctx context.Context, in *historyv1.ListConversationsRequest, opts ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	answers, err := all(ctx, r, func(ctx context.Context, _ int, client historyv1.HistoryServiceClient) (*historyv1.ListConversationsResponse, error) {
		return client.ListConversations(ctx, in, opts...)
	})
	if err != nil {
		return nil, err
	}
	merged := &historyv1.ListConversationsResponse{}
	for _, answer := range answers {
		merged.Conversations = append(merged.Conversations, answer.GetConversations()...)
		merged.RevokedBeforeMs = max(merged.GetRevokedBeforeMs(), answer.GetRevokedBeforeMs())
		merged.More = merged.GetMore() || answer.GetMore()
		merged.Ended = append(merged.GetEnded(), answer.GetEnded()...)
	}
	slices.SortFunc(merged.GetEnded(), func(a, b *historyv1.Membership) int {
		return cmp.Or(cmp.Compare(a.GetConversationId(), b.GetConversationId()), cmp.Compare(a.GetJoinedSeq(), b.GetJoinedSeq()))
	})
	slices.SortFunc(merged.GetConversations(), func(a, b *historyv1.Summary) int {
		return cmp.Compare(a.GetConversationId(), b.GetConversationId())
	})
	// What comes after the last entry of a page that has more is not known of that shard: the merged page ends there at the latest.
	for _, answer := range answers {
		page := answer.GetConversations()
		if !answer.GetMore() || len(page) == 0 {
			continue
		}
		end := page[len(page)-1].GetConversationId()
		merged.Conversations = slices.DeleteFunc(merged.GetConversations(), func(s *historyv1.Summary) bool { return s.GetConversationId() > end })
	}
	if limit := int(in.GetLimit()); limit > 0 && len(merged.GetConversations()) > limit {
		merged.Conversations, merged.More = merged.GetConversations()[:limit], true
	}
	return merged, nil
}

// CountMemberships implements historyv1.HistoryServiceClient.
func (r *Router) CountMemberships(ctx context.Context, in *historyv1.CountMembershipsRequest, opts ...grpc.CallOption) (*historyv1.CountMembershipsResponse, error) {
	answers, err := all(ctx, r, func(ctx context.Context, _ int, client historyv1.HistoryServiceClient) (*historyv1.CountMembershipsResponse, error) {
		return client.CountMemberships(ctx, in, opts...)
	})
	if err != nil {
		return nil, err
	}
	sum, byUser := &historyv1.CountMembershipsResponse{}, map[string]*historyv1.MembershipCount{}
	for _, answer := range answers {
		for _, count := range answer.GetCounts() {
			of := byUser[count.GetUserId()]
			if of == nil {
				of = &historyv1.MembershipCount{UserId: count.GetUserId()}
				byUser[count.GetUserId()] = of
				sum.Counts = append(sum.Counts, of)
			}
			of.Conversations += count.GetConversations()
		}
	}
	return sum, nil
}

// GetFeedCursors implements historyv1.HistoryServiceClient.
func (r *Router) GetFeedCursors(ctx context.Context, in *historyv1.GetFeedCursorsRequest, opts ...grpc.CallOption) (*historyv1.GetFeedCursorsResponse, error) {
	answers, err := all(ctx, r, func(ctx context.Context, _ int, client historyv1.HistoryServiceClient) (*historyv1.GetFeedCursorsResponse, error) {
		return client.GetFeedCursors(ctx, in, opts...)
	})
	joined := &historyv1.GetFeedCursorsResponse{}
	for _, answer := range answers {
		joined.Cursors = append(joined.Cursors, answer.GetCursors()...)
	}
	slices.SortFunc(joined.GetCursors(), func(a, b *historyv1.FeedCursor) int { return cmp.Compare(a.GetPartition(), b.GetPartition()) })
	return joined, err
}
