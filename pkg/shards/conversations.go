package shards

import (
	"context"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func itself(id string) string { return id }

// GetConversations implements historyv1.HistoryServiceClient.
func (r *Router) GetConversations(ctx context.Context, in *historyv1.GetConversationsRequest, opts ...grpc.CallOption) (*historyv1.GetConversationsResponse, error) {
	shards, asked := divide(r, in.GetConversationIds(), itself)
	answers, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.GetConversationsResponse, error) {
		return client.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: asked[shard]}, opts...)
	})
	joined := &historyv1.GetConversationsResponse{}
	for _, answer := range answers {
		joined.Conversations = append(joined.Conversations, answer.GetConversations()...)
	}
	return joined, err
}

// Heads implements historyv1.HistoryServiceClient.
func (r *Router) Heads(ctx context.Context, in *historyv1.HeadsRequest, opts ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	shards, asked := divide(r, in.GetConversationIds(), itself)
	answers, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.HeadsResponse, error) {
		return client.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: asked[shard]}, opts...)
	})
	joined := &historyv1.HeadsResponse{}
	for _, answer := range answers {
		joined.Heads = append(joined.Heads, answer.GetHeads()...)
	}
	return joined, err
}

// FindCommands implements historyv1.HistoryServiceClient.
func (r *Router) FindCommands(ctx context.Context, in *historyv1.FindCommandsRequest, opts ...grpc.CallOption) (*historyv1.FindCommandsResponse, error) {
	shards, asked := divide(r, in.GetCommands(), (*historyv1.CommandKey).GetConversationId)
	answers, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.FindCommandsResponse, error) {
		return client.FindCommands(ctx, &historyv1.FindCommandsRequest{Commands: asked[shard]}, opts...)
	})
	joined := &historyv1.FindCommandsResponse{}
	for _, answer := range answers {
		joined.Events = append(joined.Events, answer.GetEvents()...)
	}
	return joined, err
}

// FindMemberships implements historyv1.HistoryServiceClient.
func (r *Router) FindMemberships(ctx context.Context, in *historyv1.FindMembershipsRequest, opts ...grpc.CallOption) (*historyv1.FindMembershipsResponse, error) {
	shards, asked := divide(r, in.GetConversationIds(), itself)
	answers, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.FindMembershipsResponse, error) {
		return client.FindMemberships(ctx, &historyv1.FindMembershipsRequest{UserId: in.GetUserId(), ConversationIds: asked[shard]}, opts...)
	})
	joined := &historyv1.FindMembershipsResponse{}
	for _, answer := range answers {
		joined.Memberships = append(joined.Memberships, answer.GetMemberships()...)
	}
	return joined, err
}

// SaveCursors implements historyv1.HistoryServiceClient. It is not atomic over shards, and need not be: cursors only move forward, and
// the caller repeats all of them after an error.
func (r *Router) SaveCursors(ctx context.Context, in *historyv1.SaveCursorsRequest, opts ...grpc.CallOption) (*historyv1.SaveCursorsResponse, error) {
	shards, moved := divide(r, in.GetUpdates(), (*historyv1.CursorUpdate).GetConversationId)
	_, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.SaveCursorsResponse, error) {
		return client.SaveCursors(ctx, &historyv1.SaveCursorsRequest{Updates: moved[shard]}, opts...)
	})
	return &historyv1.SaveCursorsResponse{}, err
}

// GetFacts implements historyv1.HistoryServiceClient. A fact names its need by index: the index in the caller's list is restored.
func (r *Router) GetFacts(ctx context.Context, in *historyv1.GetFactsRequest, opts ...grpc.CallOption) (*historyv1.GetFactsResponse, error) {
	shards, needs := divide(r, in.GetNeeds(), (*historyv1.Need).GetConversationId)
	indexes := map[int][]uint32{} // by shard: the index of each of its needs in the caller's list
	for i, need := range in.GetNeeds() {
		shard := r.shardOfConversation(need.GetConversationId())
		indexes[shard] = append(indexes[shard], uint32(i))
	}
	answers, err := some(ctx, r, shards, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.GetFactsResponse, error) {
		return client.GetFacts(ctx, &historyv1.GetFactsRequest{Needs: needs[shard]}, opts...)
	})
	joined := &historyv1.GetFactsResponse{}
	for i, answer := range answers {
		of := indexes[shards[i]]
		for _, fact := range answer.GetFacts() {
			if int(fact.GetNeed()) < len(of) {
				restored := &historyv1.Fact{
					Need: of[fact.GetNeed()], Kind: fact.GetKind(), Sender: fact.GetSender(), TimeMs: fact.GetTimeMs(), Erased: fact.GetErased(), Row: fact.GetRow(),
					Reactions: fact.GetReactions(),
				}
				joined.Facts = append(joined.Facts, restored)
			}
		}
	}
	return joined, err
}
