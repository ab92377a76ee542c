package history

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// refuse translates an error into the gRPC status for the caller, counts it, and logs the cause of errors that are not
// the caller's fault. ctx is the caller's context, without the service's own time limit. The text of a database error is
// never returned to the caller: it may contain addresses and content.
func (s *Server) refuse(ctx context.Context, op *operation, err error) error {
	var invalid *store.InvalidError
	var moved *store.WatermarkError
	var fork *store.ForkError
	var level *levelError
	var gap *store.GapError
	answer := func(r reason, code codes.Code, text string, details ...protoadapt.MessageV1) error {
		op.refused[r].Inc()
		st := status.New(code, text)
		if detailed, err := st.WithDetails(details...); err == nil && len(details) > 0 {
			st = detailed
		}
		return st.Err()
	}
	switch {
	case errors.As(err, &invalid):
		return answer(reasonInvalid, codes.InvalidArgument, invalid.Error())
	case errors.Is(err, errNoViewer):
		return answer(reasonForbidden, codes.PermissionDenied, errNoViewer.Error())
	case errors.As(err, &moved):
		return answer(reasonWatermark, codes.Aborted, moved.Error(), protoadapt.MessageV1Of(moved.Present))
	case errors.Is(err, store.ErrSeqTaken):
		text := store.ErrSeqTaken.Error()
		if taken, ok := errors.AsType[*store.SeqTakenError](err); ok {
			text = taken.Error()
		}
		return answer(reasonSeqTaken, codes.FailedPrecondition, text)
	case errors.Is(err, store.ErrPosition):
		return answer(reasonPosition, codes.FailedPrecondition, err.Error())
	case errors.As(err, &fork):
		return answer(reasonFork, codes.FailedPrecondition, fork.Error(), protoadapt.MessageV1Of(fork.Fork))
	case errors.As(err, &gap):
		op.logged.Do(func() {
			s.log.ErrorContext(ctx, "rows are missing in the database: run runnel verify", "operation", op.name, "conversation", gap.ConversationID,
				"first", gap.First, "last", gap.Last)
		})
		return answer(reasonGap, codes.DataLoss, gap.Error(), protoadapt.MessageV1Of(&conversationv1.Range{First: uint64(gap.First), Last: uint64(gap.Last)}))
	case errors.Is(err, store.ErrLevel):
		return answer(reasonLevel, codes.FailedPrecondition, store.ErrLevel.Error())
	case errors.Is(err, errNewerEffect):
		return answer(reasonLevel, codes.FailedPrecondition, errNewerEffect.Error())
	case errors.As(err, &level):
		return answer(reasonLevel, codes.FailedPrecondition, level.Error())
	case errors.Is(err, store.ErrNotFound):
		return answer(reasonNotFound, codes.NotFound, store.ErrNotFound.Error())
	case errors.Is(err, store.ErrNoDeadLetter):
		return answer(reasonNotFound, codes.NotFound, store.ErrNoDeadLetter.Error())
	case errors.Is(err, store.ErrNoWorker):
		return answer(reasonNotFound, codes.NotFound, store.ErrNoWorker.Error())
	case errors.Is(err, store.ErrTooLarge):
		return answer(reasonTooLarge, codes.ResourceExhausted, store.ErrTooLarge.Error())
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return answer(reasonGivenUp, codes.Canceled, "the caller has cancelled the call")
	case ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded):
		return answer(reasonGivenUp, codes.DeadlineExceeded, "the caller's deadline has passed")
	case errors.Is(err, store.ErrDefect):
		s.log.ErrorContext(ctx, "the database refused a statement", "operation", op.name, "error", err)
		if !op.forCommands() {
			return answer(reasonDefect, codes.Internal, "the history's database refused the request; its log says why")
		}
		// The database never accepts these commands, so a retry does not help. The worker must get an invalid argument,
		// so that it makes the command that is the cause a dead letter. Internal would look like a temporary error.
		return answer(reasonDefect, codes.InvalidArgument, "the history's database refused the request; its log says why")
	default:
		// An unknown error counts as temporary, like a call that exceeded the service's time limit: a worker turns a
		// permanently refused command into a dead letter, which a temporary error must never cause.
		op.logged.Do(func() {
			s.log.WarnContext(ctx, "the database is not available", "operation", op.name, "error", err)
		})
		return answer(reasonUnavailable, codes.Unavailable, "the history's database is not available; try again")
	}
}
