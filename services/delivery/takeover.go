package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// errHole means that a stream lacks messages that nobody has committed. Going on would lose them silently, so the
// partition stops until an operator acts: another replica may still have the messages.
var errHole = errors.New("the stream has a hole")

// place is where the work on a partition begins: after the last message whose outcome counts as committed.
type place struct {
	// stored is the watermark in the store, which the first append must find there.
	stored *historyv1.Watermark
	// identity is that of the stream as it is now; sequence the last one whose outcome counts as committed.
	identity string
	sequence uint64
	// beginEpoch says that positions up to here may come again: the first append begins an epoch.
	beginEpoch bool
	// checked says that messages up to sequence count as committed by their time alone, so the admission times that the
	// commands carry must agree.
	checked bool
	// from is where to begin to read.
	from uint64
	// first and last are the bounds of the stream.
	first, last uint64
	// opening is the message after sequence; nil when there is none yet. It is read on its own, because its absence is
	// what tells a hole from messages that were merely not delivered.
	opening *source.Message
	// backup is the watermark that the last backup holds; nil when none was ever marked.
	backup *historyv1.Watermark
}

// finder finds the place to go on from. All fields are required.
type finder struct {
	JS        jetstream.JetStream
	History   historyv1.HistoryServiceClient
	Partition int
	// Republish is how many committed messages before the place are read again.
	Republish int
	// EnsureStream makes the partition's stream.
	EnsureStream func(ctx context.Context) error
	Acknowledged *acknowledged
	// Located is told the place and the end of the stream, also when a hole follows.
	Located func(sequence, last uint64)
	// JudgeNewer decides about a message of a newer version; see source.Message.TooNew.
	JudgeNewer func(ctx context.Context, e *source.Message) error
	Log        *slog.Logger
	Metrics    *metrics.Metrics
}

// takeOver finds the place to go on from, by comparing the watermark with the stream.
//
//	no watermark              begin at 0
//	watermark of another      the stream was lost and made anew: alarm, begin after the messages that are not newer than the
//	stream                    watermark, which are old ones that the broker recovered. What was committed is in the store,
//	                          what was only accepted comes again from the clients' outboxes.
//	stream ends before it,    the broker lost messages that it had acknowledged, and may have stored others since:
//	or has another message    alarm, go back to before the first message that is newer than the watermark.
//	at it                     Repeating is safe: what was committed is answered with its first outcome.
//	watermark lower than      the database was restored, or failed over to an old replica: alarm, go on from there.
//	one acknowledged to us
//	message after it gone     a hole: errHole
//
// Unless the stream has the watermark and the database has what was acknowledged, the first append begins an epoch.
func (f *finder) takeOver(ctx context.Context) (*place, error) {
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
	at := &place{
		stored: stored, identity: source.IdentityOf(info), backup: answer.GetBackup(),
		first: max(info.State.FirstSeq, 1), last: info.State.LastSeq,
	}
	if had := f.Acknowledged.get(); before(stored, had) {
		at.beginEpoch = true
		f.Log.Error("the database has an older state than was committed; it was restored, or a replica that was behind took over. "+
			"Commands since then are committed again from the stream",
			"watermark", stored.GetSequence(), "epoch", stored.GetEpoch(), "acknowledged", had.GetSequence(), "acknowledged_epoch", had.GetEpoch())
	} else {
		f.Acknowledged.set(stored)
	}
	if err := f.locate(ctx, stream, at); err != nil {
		return nil, err
	}
	f.Located(at.sequence, at.last)
	if at.sequence < at.last {
		message, err := stream.GetMsg(ctx, at.sequence+1)
		switch {
		case errors.Is(err, jetstream.ErrMsgNotFound):
			return nil, f.hole(ctx, stream, at)
		case err != nil:
			return nil, fmt.Errorf("get message %d: %w", at.sequence+1, err)
		}
		e := source.FromStream(message.Sequence, message.Time, message.Header, message.Data)
		if e.TooNew {
			if err := f.JudgeNewer(ctx, &e); err != nil {
				return nil, err
			}
		}
		at.opening = &e
	}
	return at, nil
}

// hole is the error for a hole after the place: what is missing, and what to do about it.
func (f *finder) hole(ctx context.Context, stream jetstream.Stream, at *place) error {
	through := at.last
	if next, err := stream.GetMsg(ctx, at.sequence+1, jetstream.WithGetMsgSubject(broker.CommandSubject(f.Partition))); err == nil {
		through = next.Sequence - 1
	}
	what := fmt.Sprintf("message %d is missing", at.sequence+1)
	if through > at.sequence+1 {
		what = fmt.Sprintf("messages %d to %d are missing", at.sequence+1, through)
	}
	wayOut := fmt.Sprintf("give them up with runnel-history accept-loss %d --through %d", f.Partition, through)
	if at.stored.GetStream() != at.identity && at.stored.GetStream() != "" {
		wayOut = "delete the stream: it is created again, and clients send again what was not committed"
	}
	return fmt.Errorf("%w: %s; the stream has %d to %d. Bring them back from another replica of the stream, or %s", errHole, what, at.first, at.last, wayOut)
}

// locate finds the last message whose outcome counts as committed.
func (f *finder) locate(ctx context.Context, stream jetstream.Stream, at *place) (err error) {
	switch {
	case at.stored.GetStream() == "":
		at.beginEpoch = true
	case at.stored.GetStream() != at.identity:
		at.beginEpoch, at.checked = true, true
		if at.sequence, err = source.LastNotAfter(ctx, stream, at.stored.GetTimeNs(), at.first, at.last); err != nil {
			return err
		}
		if at.sequence < at.first {
			at.sequence = 0 // nothing in it is old; what came before its first message is a hole
		}
		f.Metrics.Replaced.Inc()
		f.Log.Error("the stream was lost and created again; committed messages are safe, clients send the accepted ones again",
			"watermark", at.stored.GetSequence(), "watermark_stream", at.stored.GetStream(), "stream", at.identity, "continue_after", at.sequence)
	default:
		lost, err := source.LostTail(ctx, stream, at.stored, at.first, at.last)
		if err != nil {
			return err
		}
		if at.sequence = at.stored.GetSequence(); lost {
			at.beginEpoch, at.checked = true, true
			if at.sequence, err = source.LastNotAfter(ctx, stream, at.stored.GetTimeNs(), at.first, at.last); err != nil {
				return err
			}
			f.Metrics.Rewound.Inc()
			f.Log.Error("the broker lost messages that it had acknowledged; committed ones are safe, clients send the accepted ones again",
				"watermark", at.stored.GetSequence(), "stream_last", at.last, "continue_after", at.sequence)
		}
	}
	at.from = max(at.first, at.sequence+1-min(at.sequence, uint64(f.Republish)))
	if at.stored.GetStream() != at.identity {
		at.from = at.first
	}
	return nil
}

// stream looks at the partition's stream, and makes it if it does not exist.
func (f *finder) stream(ctx context.Context) (jetstream.Stream, error) {
	stream, err := f.JS.Stream(ctx, broker.StreamName(f.Partition))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = f.EnsureStream(ctx); err == nil {
			stream, err = f.JS.Stream(ctx, broker.StreamName(f.Partition))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("look at stream %s: %w", broker.StreamName(f.Partition), err)
	}
	return stream, nil
}
