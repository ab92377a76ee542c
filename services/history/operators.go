package history

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// ListLeases returns the workers and the partitions that each worker owns.
func (s *Server) ListLeases(ctx context.Context, _ *historyv1.ListLeasesRequest) (*historyv1.ListLeasesResponse, error) {
	return do(ctx, s, s.metrics.listLeases, nil, func(ctx context.Context) (*historyv1.ListLeasesResponse, error) {
		return s.store.Leases(ctx)
	})
}

// MovePartition stores the request that a worker should own a partition. The current owner receives the request with its
// next Lease.
func (s *Server) MovePartition(ctx context.Context, request *historyv1.MovePartitionRequest) (*historyv1.MovePartitionResponse, error) {
	return do(ctx, s, s.metrics.movePartition, s.checkMove(request), func(ctx context.Context) (*historyv1.MovePartitionResponse, error) {
		return &historyv1.MovePartitionResponse{}, s.store.Move(ctx, ids.Partition(request.GetPartition()), request.GetWorker())
	})
}

// ListDeadLetters returns dead letters by rising id, without their payloads.
func (s *Server) ListDeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error) {
	return do(ctx, s, s.metrics.listDeadLetters, s.checkListDeadLetters(request), func(ctx context.Context) (*historyv1.ListDeadLettersResponse, error) {
		return s.store.DeadLetters(ctx, request)
	})
}

// GetDeadLetter returns one dead letter with its payload.
func (s *Server) GetDeadLetter(ctx context.Context, request *historyv1.GetDeadLetterRequest) (*historyv1.GetDeadLetterResponse, error) {
	key, invalid := checkDeadLetter("dead_letter_id", request.GetDeadLetterId())
	return do(ctx, s, s.metrics.getDeadLetter, invalid, func(ctx context.Context) (*historyv1.GetDeadLetterResponse, error) {
		letter, err := s.store.DeadLetter(ctx, key)
		return &historyv1.GetDeadLetterResponse{DeadLetter: letter}, err
	})
}

// DropDeadLetter deletes a dead letter permanently.
func (s *Server) DropDeadLetter(ctx context.Context, request *historyv1.DropDeadLetterRequest) (*historyv1.DropDeadLetterResponse, error) {
	key, invalid := checkDeadLetter("dead_letter_id", request.GetDeadLetterId())
	return do(ctx, s, s.metrics.dropDeadLetter, invalid, func(ctx context.Context) (*historyv1.DropDeadLetterResponse, error) {
		return &historyv1.DropDeadLetterResponse{}, s.store.DropDeadLetter(ctx, key)
	})
}

// RevokeUser revokes the tokens of a user that were issued up to now.
func (s *Server) RevokeUser(ctx context.Context, request *historyv1.RevokeUserRequest) (*historyv1.RevokeUserResponse, error) {
	return do(ctx, s, s.metrics.revokeUser, checkUser("user_id", request.GetUserId()), func(ctx context.Context) (*historyv1.RevokeUserResponse, error) {
		beforeMs, err := s.store.Revoke(ctx, ids.User(request.GetUserId()))
		return &historyv1.RevokeUserResponse{BeforeMs: beforeMs}, err
	})
}

// GetRevocations returns the revocations after a time, oldest first. Each revocation has a later time than all earlier
// ones. Therefore reading from the time of the last one skips nothing and repeats nothing.
func (s *Server) GetRevocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error) {
	return do(ctx, s, s.metrics.getRevocations, checkRevocations(request), func(ctx context.Context) (*historyv1.GetRevocationsResponse, error) {
		return s.store.Revocations(ctx, request)
	})
}

func (s *Server) checkMove(request *historyv1.MovePartitionRequest) error {
	if err := s.checkPartition("partition", ids.Partition(request.GetPartition())); err != nil {
		return err
	}
	if request.GetWorker() == "" {
		return nil
	}
	return checkWorker(request.GetWorker())
}

func (s *Server) checkListDeadLetters(request *historyv1.ListDeadLettersRequest) error {
	if request.Partition != nil {
		if err := s.checkPartition("partition", ids.Partition(request.GetPartition())); err != nil {
			return err
		}
	}
	if request.GetAfter() != "" {
		if _, err := checkDeadLetter("after", request.GetAfter()); err != nil {
			return err
		}
	}
	return checkLimit(request.GetLimit())
}

func checkDeadLetter(field, id string) (store.DeadLetterKey, error) {
	key, ok := store.ParseDeadLetterID(id)
	if !ok {
		return key, store.Invalid(field, "is not the id of a dead letter: it looks like 0003-1790000000000000000-0000000000000000042")
	}
	return key, nil
}

func checkRevocations(request *historyv1.GetRevocationsRequest) error {
	if request.GetSinceMs() < 0 {
		return store.Invalid("since_ms", "must not be negative")
	}
	return checkOptionalUser("user_id", request.GetUserId())
}
