package shards

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

func unsupported(call string) error {
	return status.Errorf(codes.Unimplemented, "%s is not supported with several history databases yet", call)
}

// CompareMemberships implements historyv1.HistoryServiceClient. It fails: a user's digest covers the memberships in all shards, which no
// shard knows. It needs a digest for each shard in the request.
func (r *Router) CompareMemberships(context.Context, *historyv1.CompareMembershipsRequest, ...grpc.CallOption) (*historyv1.CompareMembershipsResponse, error) {
	return nil, unsupported("CompareMemberships")
}

// ListDeadLetters implements historyv1.HistoryServiceClient. It fails: ids of dead letters are unique within a shard only.
func (r *Router) ListDeadLetters(context.Context, *historyv1.ListDeadLettersRequest, ...grpc.CallOption) (*historyv1.ListDeadLettersResponse, error) {
	return nil, unsupported("ListDeadLetters")
}

// GetDeadLetter implements historyv1.HistoryServiceClient. It fails: see ListDeadLetters.
func (r *Router) GetDeadLetter(context.Context, *historyv1.GetDeadLetterRequest, ...grpc.CallOption) (*historyv1.GetDeadLetterResponse, error) {
	return nil, unsupported("GetDeadLetter")
}

// DropDeadLetter implements historyv1.HistoryServiceClient. It fails: see ListDeadLetters.
func (r *Router) DropDeadLetter(context.Context, *historyv1.DropDeadLetterRequest, ...grpc.CallOption) (*historyv1.DropDeadLetterResponse, error) {
	return nil, unsupported("DropDeadLetter")
}
