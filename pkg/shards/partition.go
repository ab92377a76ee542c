package shards

import (
	"context"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Append implements historyv1.HistoryServiceClient.
func (r *Router) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	return r.of(in.GetPartition()).Append(ctx, in, opts...)
}

// GetWatermark implements historyv1.HistoryServiceClient.
func (r *Router) GetWatermark(ctx context.Context, in *historyv1.GetWatermarkRequest, opts ...grpc.CallOption) (*historyv1.GetWatermarkResponse, error) {
	return r.of(in.GetPartition()).GetWatermark(ctx, in, opts...)
}

// ListRefusals implements historyv1.HistoryServiceClient.
func (r *Router) ListRefusals(ctx context.Context, in *historyv1.ListRefusalsRequest, opts ...grpc.CallOption) (*historyv1.ListRefusalsResponse, error) {
	return r.of(in.GetPartition()).ListRefusals(ctx, in, opts...)
}

// ReadFeed implements historyv1.HistoryServiceClient.
func (r *Router) ReadFeed(ctx context.Context, in *historyv1.ReadFeedRequest, opts ...grpc.CallOption) (*historyv1.ReadFeedResponse, error) {
	return r.of(in.GetPartition()).ReadFeed(ctx, in, opts...)
}

// SaveFeedCursor implements historyv1.HistoryServiceClient. A reader's cursor is kept beside the partition that it reads.
func (r *Router) SaveFeedCursor(ctx context.Context, in *historyv1.SaveFeedCursorRequest, opts ...grpc.CallOption) (*historyv1.SaveFeedCursorResponse, error) {
	return r.of(in.GetCursor().GetPartition()).SaveFeedCursor(ctx, in, opts...)
}

// Read implements historyv1.HistoryServiceClient.
func (r *Router) Read(ctx context.Context, in *historyv1.ReadRequest, opts ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	return r.ofConversation(in.GetConversationId()).Read(ctx, in, opts...)
}

// ReadMessages implements historyv1.HistoryServiceClient.
func (r *Router) ReadMessages(ctx context.Context, in *historyv1.ReadMessagesRequest, opts ...grpc.CallOption) (*historyv1.ReadMessagesResponse, error) {
	return r.ofConversation(in.GetConversationId()).ReadMessages(ctx, in, opts...)
}

// ListMembers implements historyv1.HistoryServiceClient.
func (r *Router) ListMembers(ctx context.Context, in *historyv1.ListMembersRequest, opts ...grpc.CallOption) (*historyv1.ListMembersResponse, error) {
	return r.ofConversation(in.GetConversationId()).ListMembers(ctx, in, opts...)
}
