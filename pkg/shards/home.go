package shards

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
)

// Lease implements historyv1.HistoryServiceClient. The first shard keeps the leases of all partitions, so that workers divide them by
// one clock. A lease is an optimisation: what protects a partition is the watermark in its own shard.
func (r *Router) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	return r.home().Lease(ctx, in, opts...)
}

// ListLeases implements historyv1.HistoryServiceClient.
func (r *Router) ListLeases(ctx context.Context, in *historyv1.ListLeasesRequest, opts ...grpc.CallOption) (*historyv1.ListLeasesResponse, error) {
	return r.home().ListLeases(ctx, in, opts...)
}

// MovePartition implements historyv1.HistoryServiceClient.
func (r *Router) MovePartition(ctx context.Context, in *historyv1.MovePartitionRequest, opts ...grpc.CallOption) (*historyv1.MovePartitionResponse, error) {
	return r.home().MovePartition(ctx, in, opts...)
}

// RevokeUser implements historyv1.HistoryServiceClient. The first shard keeps revocations.
func (r *Router) RevokeUser(ctx context.Context, in *historyv1.RevokeUserRequest, opts ...grpc.CallOption) (*historyv1.RevokeUserResponse, error) {
	return r.home().RevokeUser(ctx, in, opts...)
}

// GetRevocations implements historyv1.HistoryServiceClient.
func (r *Router) GetRevocations(ctx context.Context, in *historyv1.GetRevocationsRequest, opts ...grpc.CallOption) (*historyv1.GetRevocationsResponse, error) {
	return r.home().GetRevocations(ctx, in, opts...)
}

// GetInstallation implements historyv1.HistoryServiceClient. All shards must have as many partitions; the level is the lowest: raising
// it may have failed halfway.
func (r *Router) GetInstallation(ctx context.Context, in *historyv1.GetInstallationRequest, opts ...grpc.CallOption) (*historyv1.GetInstallationResponse, error) {
	answers, err := all(ctx, r, func(ctx context.Context, _ int, client historyv1.HistoryServiceClient) (*historyv1.GetInstallationResponse, error) {
		return client.GetInstallation(ctx, in, opts...)
	})
	if err != nil {
		return nil, err
	}
	joined := &historyv1.GetInstallationResponse{Partitions: uint32(r.partitions), Level: answers[0].GetLevel()}
	for shard, answer := range answers {
		if int(answer.GetPartitions()) != r.partitions {
			return nil, disagreement("partitions", uint32(r.partitions), answer.GetPartitions(), shard)
		}
		joined.Level = min(joined.GetLevel(), answer.GetLevel())
	}
	return joined, nil
}

// RaiseLevel implements historyv1.HistoryServiceClient. Repeat it if it fails.
func (r *Router) RaiseLevel(ctx context.Context, in *historyv1.RaiseLevelRequest, opts ...grpc.CallOption) (*historyv1.RaiseLevelResponse, error) {
	answers, err := all(ctx, r, func(ctx context.Context, _ int, client historyv1.HistoryServiceClient) (*historyv1.RaiseLevelResponse, error) {
		return client.RaiseLevel(ctx, in, opts...)
	})
	if err != nil {
		return nil, err
	}
	return answers[0], nil
}

// MarkBackup implements historyv1.HistoryServiceClient. Each shard marks its own partitions: a backup is complete only if the backups
// of all shards are.
func (r *Router) MarkBackup(ctx context.Context, in *historyv1.MarkBackupRequest, opts ...grpc.CallOption) (*historyv1.MarkBackupResponse, error) {
	marks := make([][]*historyv1.BackupMark, len(r.clients))
	for _, mark := range in.GetMarks() {
		shard := r.shardOf(ids.Partition(mark.GetPartition()))
		marks[shard] = append(marks[shard], mark)
	}
	answers, err := all(ctx, r, func(ctx context.Context, shard int, client historyv1.HistoryServiceClient) (*historyv1.MarkBackupResponse, error) {
		if len(in.GetMarks()) > 0 && len(marks[shard]) == 0 {
			return nil, nil //nolint:nilnil // no partition of this shard is marked; getters accept nil
		}
		return client.MarkBackup(ctx, &historyv1.MarkBackupRequest{Marks: marks[shard]}, opts...)
	})
	joined := &historyv1.MarkBackupResponse{}
	for shard, answer := range answers {
		for _, mark := range answer.GetMarks() {
			if r.shardOf(ids.Partition(mark.GetPartition())) == shard { // a shard also has empty watermarks of the other partitions
				joined.Marks = append(joined.Marks, mark)
			}
		}
	}
	slices.SortFunc(joined.GetMarks(), func(a, b *historyv1.BackupMark) int { return cmp.Compare(a.GetPartition(), b.GetPartition()) })
	return joined, err
}
