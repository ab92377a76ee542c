// Package takeover finds the place in the stream where the work on a partition continues. It compares the watermark in
// the store with the stream.
package takeover

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// ErrHole means that uncommitted messages are missing in a stream. Continuing would lose them silently, so the partition
// stops until an operator acts: another replica may still have the messages.
var ErrHole = errors.New("the stream has a hole")

// Place is the place in the stream where the work on a partition begins: after the last message whose outcome counts as
// committed.
type Place struct {
	// Stored is the watermark in the store. The first append must state it.
	Stored *historyv1.Watermark
	// Identity is the identity of the current stream. Sequence is the last sequence whose outcome counts as committed.
	Identity string
	Sequence ids.Sequence
	// BeginEpoch means that positions up to this place may be used again. Therefore the first append begins a new epoch.
	BeginEpoch bool
	// Checked means that messages up to Sequence count as committed only because of their stream time. Therefore the
	// admission times of their commands must be checked.
	Checked bool
	// From is the sequence at which to start reading.
	From ids.Sequence
	// First and Last are the bounds of the stream.
	first, Last ids.Sequence
	// Opening is the message after Sequence; nil if it does not exist yet. It is read separately: if it is missing, there
	// is a hole; if it exists, it was just not delivered.
	Opening *source.Message
	// Backup is the watermark that the last backup contains; nil if no backup was ever recorded.
	Backup *historyv1.Watermark
}

// Finder finds the place at which to continue. All fields are required.
type Finder struct {
	JS        jetstream.JetStream
	History   historyv1.HistoryServiceClient
	Partition ids.Partition
	// Republish is how many committed messages before the place are read again.
	Republish int
	// EnsureStream makes the partition's stream.
	EnsureStream func(ctx context.Context) error
	Acknowledged *Acknowledged
	// Located receives the place and the end of the stream, even if a hole follows.
	Located func(sequence, last ids.Sequence)
	// JudgeNewer handles a message of a newer version; see source.Message.TooNew.
	JudgeNewer func(ctx context.Context, e *source.Message) error
	Log        *slog.Logger
	Metrics    *metrics.Metrics
}

// Find finds the place at which to continue, by comparing the watermark with the stream.
//
//	no watermark              begin at 0
//	watermark of another      the stream was lost and created again: alarm, begin after the messages that are not newer than the
//	stream                    watermark, which are old ones that the broker recovered. Committed commands are in the store,
//	                          commands that were only accepted are sent again from the clients' outboxes.
//	stream ends before it,    the broker lost messages that it had acknowledged, and may have stored others since:
//	or has another message    alarm, go back to before the first message that is newer than the watermark.
//	at it                     Repeating is safe: a committed command is answered with its first outcome.
//	watermark lower than      the database was restored, or failed over to an old replica: alarm, continue there.
//	one acknowledged to this worker
//	message after it gone     a hole: ErrHole
//
// Unless the stream has the watermark and the database has what was acknowledged, the first append begins an epoch.
func (f *Finder) Find(ctx context.Context) (*Place, error) {
	answer, err := f.History.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: uint32(f.Partition)})
	if err != nil {
		return nil, fmt.Errorf("get the watermark: %w", err)
	}
	stored := answer.GetWatermark()
	if stored == nil {
		stored = &historyv1.Watermark{}
	}
	stream, err := f.stream(ctx)
	if err != nil {
		return nil, err
	}
	info := stream.CachedInfo()
	at := &Place{
		Stored: stored, Identity: source.IdentityOf(info), Backup: answer.GetBackup(),
		first: ids.Sequence(max(info.State.FirstSeq, 1)), Last: ids.Sequence(info.State.LastSeq),
	}
	if had := f.Acknowledged.get(); Before(stored, had) {
		at.BeginEpoch = true
		f.Log.Error("the database has an older state than was committed; it was restored, or a replica that was behind took over. "+
			"Commands since then are committed again from the stream",
			"watermark", stored.GetSequence(), "epoch", stored.GetEpoch(), "acknowledged", had.GetSequence(), "acknowledged_epoch", had.GetEpoch())
	} else {
		f.Acknowledged.Set(stored)
	}
	if err := f.locate(ctx, stream, at); err != nil {
		return nil, err
	}
	f.Located(at.Sequence, at.Last)
	if at.Sequence < at.Last {
		message, err := stream.GetMsg(ctx, uint64(at.Sequence+1))
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, f.hole(ctx, stream, at)
		case err != nil:
			return nil, fmt.Errorf("get message %d: %w", at.Sequence+1, err)
		}
		e := source.FromStream(ids.Sequence(message.Sequence), message.Subject, message.Time, message.Header, message.Data)
		if e.TooNew {
			if err := f.JudgeNewer(ctx, &e); err != nil {
				return nil, err
			}
		}
		at.Opening = &e
	}
	return at, nil
}

// hole returns the error for a hole after the place. It states which messages are missing and what the operator can do.
func (f *Finder) hole(ctx context.Context, stream jetstream.Stream, at *Place) error {
	through := at.Last
	if next, err := stream.GetMsg(ctx, uint64(at.Sequence+1), jetstream.WithGetMsgSubject(">")); err == nil {
		through = ids.Sequence(next.Sequence - 1)
	}
	what := fmt.Sprintf("message %d is missing", at.Sequence+1)
	if through > at.Sequence+1 {
		what = fmt.Sprintf("messages %d to %d are missing", at.Sequence+1, through)
	}
	wayOut := fmt.Sprintf("accept their loss with runnel-history accept-loss %d --through %d", f.Partition, through)
	if at.Stored.GetStream() != at.Identity && at.Stored.GetStream() != "" {
		wayOut = "delete the stream: it is created again, and clients send again what was not committed"
	}
	return fmt.Errorf("%w: %s; the stream has %d to %d. Restore them from another replica of the stream, or %s", ErrHole, what, at.first, at.Last, wayOut)
}

// locate finds the last message whose outcome counts as committed.
func (f *Finder) locate(ctx context.Context, stream jetstream.Stream, at *Place) (err error) {
	switch {
	case at.Stored.GetStream() == "":
		at.BeginEpoch = true
	case at.Stored.GetStream() != at.Identity:
		at.BeginEpoch, at.Checked = true, true
		if at.Sequence, err = source.LastNotAfter(ctx, stream, at.Stored.GetTimeNs(), at.first, at.Last); err != nil {
			return err
		}
		if at.Sequence < at.first {
			at.Sequence = 0 // all messages in the stream are new; a missing message before the first one is a hole
		}
		f.Metrics.Replaced.Inc()
		f.Log.Error("the stream was lost and created again; committed messages are safe, and clients send again what was accepted but not committed",
			"watermark", at.Stored.GetSequence(), "watermark_stream", at.Stored.GetStream(), "stream", at.Identity, "continue_after", at.Sequence)
	default:
		lost, err := source.LostTail(ctx, stream, at.Stored, at.first, at.Last)
		if err != nil {
			return err
		}
		if at.Sequence = ids.Sequence(at.Stored.GetSequence()); lost {
			at.BeginEpoch, at.Checked = true, true
			if at.Sequence, err = source.LastNotAfter(ctx, stream, at.Stored.GetTimeNs(), at.first, at.Last); err != nil {
				return err
			}
			f.Metrics.Rewound.Inc()
			f.Log.Error("the broker lost messages that it had acknowledged; committed messages are safe, and clients send again what was accepted but not committed",
				"watermark", at.Stored.GetSequence(), "stream_last", at.Last, "continue_after", at.Sequence)
		}
	}
	at.From = max(at.first, at.Sequence+1-min(at.Sequence, ids.Sequence(f.Republish)))
	if at.Stored.GetStream() != at.Identity {
		at.From = at.first
	}
	return nil
}

// stream returns the partition's stream, and creates it if it does not exist.
func (f *Finder) stream(ctx context.Context) (jetstream.Stream, error) {
	stream, err := f.JS.Stream(ctx, broker.StreamName(f.Partition))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = f.EnsureStream(ctx); err == nil {
			stream, err = f.JS.Stream(ctx, broker.StreamName(f.Partition))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inspect stream %s: %w", broker.StreamName(f.Partition), err)
	}
	// Streams of earlier versions have no subject for commands of internal services. Add it; their messages stay
	// unchanged.
	if config := stream.CachedInfo().Config; !slices.Contains(config.Subjects, broker.ServerSubject(f.Partition)) {
		config.Subjects = append(slices.Clone(config.Subjects), broker.ServerSubject(f.Partition))
		if stream, err = f.JS.UpdateStream(ctx, config); err != nil {
			return nil, fmt.Errorf("add a subject to stream %s: %w", broker.StreamName(f.Partition), err)
		}
	}
	return stream, nil
}
