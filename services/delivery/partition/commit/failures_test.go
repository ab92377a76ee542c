package commit

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

var errAway = errors.New("away")

// An append to a store that does not answer is retried without limit.
func TestUnanswered(t *testing.T) {
	b := setup(t)
	b.store.appending = times(10, codes.Unavailable)
	b.commit(messages(t, 1, create))
	require.Len(t, b.store.appends, 11)
	require.Equal(t, 10, b.host.waits)
	require.Equal(t, 10, b.host.looks, "the lag is kept up to date")
	require.Equal(t, 10, b.count("append_retries_total", ""))
	require.Equal(t, 1, strings.Count(b.log.String(), "the store did not accept a batch"), "it is logged once")
	require.Empty(t, b.host.alarms)
	require.Equal(t, 1, b.host.calms)
	results, events := b.told()
	require.Len(t, results, 1)
	require.Len(t, events, 1)
}

// An error without an error code of the store counts as a missing answer: it never loses a command.
func TestForeignErrorsLoseNothing(t *testing.T) {
	for _, code := range []codes.Code{codes.Internal, codes.Unimplemented, codes.DeadlineExceeded, codes.PermissionDenied} {
		b := setup(t)
		b.store.appending = times(2*tries, code)
		b.commit(messages(t, 1, create))
		require.Empty(t, b.store.DeadLetters())
		require.Len(t, b.store.Logs[string(group)], 1)
	}
}

// Each attempt to append has its own deadline.
func TestAppendThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		hanging := &hangs{shop: b.store, left: 2}
		b.History = hanging
		begun := time.Now()
		b.commit(messages(t, 1, create))
		require.Equal(t, 2*timeout, time.Since(begun))
	})
}

// hangs is a store whose first appends last until their deadline.
type hangs struct {
	*shop

	left int
}

func (h *hangs) Append(ctx context.Context, in *historyv1.AppendRequest, opts ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	if h.left--; h.left >= 0 {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return h.shop.Append(ctx, in, opts...)
}

// Stopping the work ends the retries, and nothing is published.
func TestStoppedWhileTheStoreIsAway(t *testing.T) {
	b := setup(t)
	b.host.stopAfter = 2
	b.store.appending = times(100, codes.Unavailable)
	err := b.Commit(t.Context(), messages(t, 1, create), tries)
	require.ErrorIs(t, err, store.ErrStopping)
	require.ErrorContains(t, err, "Unavailable", "it names the cause")
	require.Equal(t, 2, b.host.waits)
	require.Equal(t, 1, b.host.looks)
	require.Zero(t, b.Position())
	require.Empty(t, b.host.marks)
	require.Empty(t, b.conn.Take())
}

// The store's watermark differs from the expected one. Either another worker moved it, or this worker moved it and lost
// the answer.
func TestWatermarkMoved(t *testing.T) {
	for name, c := range map[string]struct {
		before  []codes.Code
		is, not error
	}{
		"by another worker":                     {nil, ErrSuperseded, ErrUncertain},
		"by another worker, after a rejection":  {[]codes.Code{codes.InvalidArgument}, ErrSuperseded, ErrUncertain},
		"after an append that was not answered": {[]codes.Code{codes.Unavailable}, ErrUncertain, ErrSuperseded},
		"after several":                         {[]codes.Code{codes.Unavailable, codes.InvalidArgument}, ErrUncertain, ErrSuperseded},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			answers := slices.Concat(c.before, []codes.Code{codes.Aborted})
			b.store.appending = func() error { return status.Error(answers[len(b.store.appends)-1], "no") }
			err := b.Commit(t.Context(), messages(t, 1, create), tries)
			require.ErrorIs(t, err, c.is)
			require.NotErrorIs(t, err, c.not)
			require.Len(t, b.store.appends, len(answers), "it is not tried again")
			require.Empty(t, b.conn.Take())
			require.Zero(t, b.Position())
			require.Empty(t, b.host.alarms)
		})
	}
}

// The answer to an append is lost. The retry finds that the watermark moved, and recognizes its own append.
func TestCommittedButNotAnswered(t *testing.T) {
	b := setup(t)
	b.store.Fail(nil, func(*historyv1.AppendRequest) error { return status.Error(codes.Unavailable, "lost") })
	err := b.Commit(t.Context(), messages(t, 1, create), tries)
	require.ErrorIs(t, err, ErrUncertain)
	require.EqualValues(t, 1, b.store.Mark().GetSequence())
	require.Empty(t, b.conn.Take(), "the next session publishes it")
}

// A state in memory that differs from the store's state ends the session. The error does not blame another worker.
func TestStateDiffers(t *testing.T) {
	b := setup(t)
	b.store.appending = times(1, codes.FailedPrecondition)
	err := b.Commit(t.Context(), messages(t, 1, create), tries)
	require.ErrorContains(t, err, "refuses a batch")
	require.NotErrorIs(t, err, ErrSuperseded)
	require.NotErrorIs(t, err, ErrUncertain)
	require.NotErrorIs(t, err, store.ErrStopping)
	require.Len(t, b.store.appends, 1)
	require.Empty(t, b.conn.Take())
}

// A batch that is too large is halved at once, as often as necessary.
func TestTooLarge(t *testing.T) {
	b := setup(t)
	b.store.appending = func() error {
		if len(b.store.appends[len(b.store.appends)-1].GetEvents()) > 1 {
			return status.Error(codes.ResourceExhausted, "too large")
		}
		return nil
	}
	b.commit(messages(t, 1, create, text(2, "a"), text(3, "b"), text(4, "c"), text(5, "d")))
	var sizes []int
	for _, in := range b.store.appends {
		sizes = append(sizes, len(in.GetEvents()))
	}
	require.Equal(t, []int{5, 2, 1, 1, 3, 1, 2, 1, 1}, sizes)
	require.Zero(t, b.host.waits)
	require.Len(t, b.store.Logs[string(group)], 5)
	require.Empty(t, b.store.DeadLetters())
	require.EqualValues(t, 5, b.store.Mark().GetSequence())
	results, _ := b.told()
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, seqsOf(results))
}

// A single command that is too large becomes a dead letter.
func TestOneCommandIsTooLarge(t *testing.T) {
	b := setup(t)
	b.commit(messages(t, 1, create))
	b.rejecting("huge", codes.ResourceExhausted)
	b.commit(messages(t, 2, text(2, "huge")))
	require.Len(t, b.store.DeadLetters(), 1)
	require.Len(t, b.store.appends, 1+tries+1)
}

// The store rejects a batch a few times. The batch is then halved until only the poison command is left, which becomes a
// dead letter. The other commands are committed in order.
func TestPoison(t *testing.T) {
	b := setup(t)
	b.rejecting("poison", codes.InvalidArgument)
	b.commit(messages(t, 1, create, text(2, "a"), text(3, "poison"), text(4, "b")))
	var sizes []int
	for _, in := range b.store.appends {
		sizes = append(sizes, len(in.GetEvents()))
	}
	// The whole batch three times; its first half; its second half once; the poison command three times; its dead letter;
	// the last command.
	require.Equal(t, []int{4, 4, 4, 2, 2, 1, 1, 1, 0, 1}, sizes)
	letters := b.store.DeadLetters()
	require.Len(t, letters, 1)
	require.EqualValues(t, 3, letters[0].GetSequence())
	require.Contains(t, letters[0].GetReason(), "InvalidArgument")
	results, events := b.told()
	require.Equal(t, []uint64{1, 2, 0, 3}, seqsOf(results))
	require.Equal(t, []conversationv1.ErrorCode{none, none, dead, none}, codesOf(results))
	require.Len(t, events, 3)
	require.Empty(t, b.host.alarms)
	require.Equal(t, 1, b.count("commands_total", "dead_lettered"))
	require.Contains(t, b.log.String(), "a message became a dead letter")
	b.store.Verify(t)

	// A later copy gets the same answer and is not carried out.
	b.store.appending = nil
	b.commit(messages(t, 5, text(3, "poison")))
	results, _ = b.told()
	require.Equal(t, []conversationv1.ErrorCode{dead}, codesOf(results))
	require.Len(t, b.store.DeadLetters(), 1)
	require.Equal(t, 2, b.count("commands_total", "dead_lettered"))
}

// A rejection that ends within the allowed attempts creates no dead letter.
func TestRejectionThatHeals(t *testing.T) {
	b := setup(t)
	b.store.appending = times(tries-1, codes.InvalidArgument)
	b.commit(messages(t, 1, create))
	require.Empty(t, b.store.DeadLetters())
	require.Len(t, b.store.appends, tries)
	require.Len(t, b.store.Logs[string(group)], 1)
}

// A store that also rejects the dead letter is itself faulty. The partition stops with an alarm, and no command is lost.
func TestStoreThatRejectsEverything(t *testing.T) {
	b := setup(t)
	b.store.appending = times(tries+2, codes.InvalidArgument)
	b.commit(messages(t, 1, create))
	require.Len(t, b.host.alarms, 2)
	require.ErrorContains(t, b.host.alarms[0], "the store accepts neither message 1 nor its dead letter")
	require.Len(t, b.store.DeadLetters(), 1)
	require.Contains(t, b.store.DeadLetters()[0].GetReason(), "InvalidArgument")
	require.Equal(t, 1, strings.Count(b.log.String(), "a message became a dead letter"))
}

// A store with missing events raises the alarm. The append is retried until the store is repaired.
func TestDamaged(t *testing.T) {
	b := setup(t)
	b.store.appending = times(2, codes.DataLoss)
	b.commit(messages(t, 1, create))
	require.Len(t, b.host.alarms, 2)
	require.ErrorContains(t, b.host.alarms[0], "conversations verify")
	require.Empty(t, b.store.DeadLetters())
	require.Equal(t, 1, b.host.calms)
	b.store.appending = times(1, codes.DataLoss)
	b.rejecting("x", codes.Aborted)
	require.ErrorIs(t, b.Commit(t.Context(), messages(t, 2, text(2, "x")), tries), ErrSuperseded)
}

// An answer that reports a duplicate at an index outside the batch ends the session.
func TestAnswerWithoutSense(t *testing.T) {
	b := setup(t)
	b.History = &liar{shop: b.store}
	err := b.Commit(t.Context(), messages(t, 1, create), tries)
	require.ErrorContains(t, err, "duplicate 7 of 1 events")
	require.Empty(t, b.conn.Take())
	require.Zero(t, b.Position())
}

// liar is a store that reports duplicates which do not exist.
type liar struct{ *shop }

func (*liar) Append(context.Context, *historyv1.AppendRequest, ...grpc.CallOption) (*historyv1.AppendResponse, error) {
	return &historyv1.AppendResponse{Duplicates: []*historyv1.Duplicate{{Index: 7}}}, nil
}

// A failure in one half of a batch ends the batch: later commands are not committed.
func TestFailureInAHalf(t *testing.T) {
	b := setup(t)
	b.store.appending = func() error {
		return status.Error([]codes.Code{codes.ResourceExhausted, codes.Aborted, codes.OK}[len(b.store.appends)-1], "no")
	}
	require.ErrorIs(t, b.Commit(t.Context(), messages(t, 1, create, text(2, "x")), tries), ErrSuperseded)
	require.Len(t, b.store.appends, 2)
	require.Zero(t, b.Position())
}

// If there is no room to remember a refusal, the outcome of the command is unknown.
func TestUnremembered(t *testing.T) {
	b := setup(t)
	b.Refusals.Limit = 1
	b.commit(messages(t, 1, create, intruder(2), intruder(3)))
	results, _ := b.told()
	require.Equal(t, []conversationv1.ErrorCode{none, notFound, unknown}, codesOf(results))
	require.Equal(t, 1, b.count("refusals_unremembered_total", ""))
	require.Len(t, b.store.appends[0].GetRefusals(), 1)
	require.Nil(t, b.Refusals.Find(source.KeyOf(deliverytest.Command(string(group), "eve", 3, deliverytest.Text("x"))), 0, 3))
}
