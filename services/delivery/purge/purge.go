// Package purge removes committed commands from a partition's stream, so that the stream never refuses new commands because of
// old ones. Commands that a restore from the last backup needs are kept as long as there is space.
package purge

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

const (
	// KeptCommands is the number of committed commands that stay in a stream even if a backup contains their outcome.
	KeptCommands = 10_000
	// keptWithoutBackup is how long committed commands stay in a stream, by its time, if no backup was ever recorded.
	keptWithoutBackup = time.Hour
	// pressedFill is the fill level above which committed commands are purged even if a restore might need them.
	// relievedFill is the fill level after that purge.
	pressedFill, relievedFill = 0.9, 0.75
	// lookFill is the estimated fill level at which a stream is inspected early, before the interval has passed.
	lookFill = 0.8
	// leastBetweenLooks is the shortest interval between two early inspections.
	leastBetweenLooks = 2 * time.Millisecond
	// A stream filled to watchFill, or limited to watchBytes or less, is inspected every watchInterval: it could fill up
	// while the store is unavailable and no message is read.
	watchFill     = 0.5
	watchBytes    = 64 << 20
	watchInterval = time.Second
	// entryOverhead is the approximate size that a message needs in a stream in addition to its payload.
	entryOverhead = 256
	callTimeout   = 5 * time.Second
	// complainInterval is the shortest interval between two logged alarms.
	complainInterval = time.Minute
)

// extent describes the content of a stream: its bounds and size.
type extent struct {
	first, last     ids.Sequence
	messages        uint64
	bytes, maxBytes uint64
}

func (x extent) fill() float64 {
	if x.maxBytes == 0 {
		return 0
	}
	return float64(x.bytes) / float64(x.maxBytes)
}

// purgeBelow returns the sequence below which a stream may be purged. pressed means that the stream is so full that the sequence
// is above the usual bound. The result is never above the watermark, so neither the message at the watermark nor an uncommitted
// message is ever purged.
//
//	committed  is the watermark, in the inspected stream
//	backup     is the watermark that the last backup contains; nil if no backup was ever recorded
//	recent     is the first sequence that is not older than keptWithoutBackup; only used if there is no backup
//
// A backup of another stream or epoch does not cover any message of this stream.
func purgeBelow(committed *historyv1.Watermark, stream extent, backup *historyv1.Watermark, recent ids.Sequence) (bound ids.Sequence, pressed bool) {
	if bugPurgeAboveWatermark {
		return stream.last + 1, false
	}
	switch {
	case backup == nil:
		bound = recent
	case backup.GetStream() == committed.GetStream() && backup.GetEpoch() == committed.GetEpoch():
		bound = ids.Sequence(backup.GetSequence())
	}
	mark := ids.Sequence(committed.GetSequence())
	bound = min(bound, mark-min(mark, KeptCommands))
	if stream.fill() <= pressedFill || stream.messages == 0 {
		return bound, false
	}
	perMessage := max(stream.bytes/stream.messages, 1)
	excess := stream.bytes - uint64(relievedFill*float64(stream.maxBytes))
	needed := min(stream.first+ids.Sequence((excess+perMessage-1)/perMessage), mark)
	if needed <= bound {
		return bound, false
	}
	return needed, true
}

// Config contains the dependencies of a purger. All fields are required.
type Config struct {
	JS        jetstream.JetStream
	History   historyv1.HistoryServiceClient
	Partition ids.Partition
	// Interval is how often the stream is inspected if it does not seem nearly full.
	Interval time.Duration
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  *metrics.Metrics
	Gauges   metrics.Gauges
}

// Purger purges committed commands from the stream of one partition, so that the stream does not fill up. It inspects the
// stream at an interval, and at once when the stream seems nearly full. The commit loop calls Grow; Run has its own
// goroutine.
type Purger struct {
	Config

	// free is the number of bytes that may still be read before the stream is inspected.
	free atomic.Int64
	// mark is the last watermark that the session knows to be committed.
	mark    atomic.Pointer[historyv1.Watermark]
	lookNow wake.Signal // has a token when the stream is to be inspected
	// the fields below are used by Run only
	backup  *historyv1.Watermark
	alarmed time.Time
}

// New makes a purger. It does nothing until Run.
func New(cfg Config) *Purger {
	p := &Purger{Config: cfg, lookNow: wake.NewSignal()}
	p.free.Store(math.MaxInt64)
	return p
}

// Grow reports that messages were added to the stream. It does not block.
func (p *Purger) Grow(entries []source.Message) {
	var bytes int64
	for i := range entries {
		bytes += int64(len(entries[i].Payload)) + entryOverhead
	}
	if p.free.Add(-bytes) < 0 {
		p.lookNow.Raise()
	}
}

// Begin is called by a session before Run, with the watermarks of the store and of the last backup.
func (p *Purger) Begin(stored, backup *historyv1.Watermark) {
	p.mark.Store(stored)
	p.backup = backup
	p.lookNow.Clear()
}

// Run works until ctx ends, on the stream with this identity.
func (p *Purger) Run(ctx context.Context, identity string) {
	asked := time.Now()
	for {
		now, err := p.purgeCommitted(ctx, identity)
		if err != nil && ctx.Err() == nil {
			p.Metrics.PurgeFailures.Inc()
			p.complain("could not purge committed commands; when the stream is full it refuses new ones", "error", err)
		}
		if !pause(ctx, leastBetweenLooks, nil) || !pause(ctx, p.nextLook(now), p.lookNow) {
			return
		}
		if time.Since(asked) >= p.Interval {
			asked = time.Now()
			p.askBackup(ctx)
		}
	}
}

// nextLook returns the time until the next regular inspection of a stream.
func (p *Purger) nextLook(now extent) time.Duration {
	if now.maxBytes > 0 && (now.maxBytes <= watchBytes || now.fill() >= watchFill) {
		return min(watchInterval, p.Interval)
	}
	return p.Interval
}

// pause waits until d is over or wake has a token; it returns false if ctx has ended.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}

// askBackup reads the watermark of the last backup. While the store does not answer, the previous watermark is used. It
// is lower, so less is purged.
func (p *Purger) askBackup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := p.History.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: uint32(p.Partition)})
	if err == nil {
		p.backup = answer.GetBackup()
	}
}

// purgeCommitted inspects the stream and purges the messages that may be purged. It returns the extent of the stream
// before the purge.
func (p *Purger) purgeCommitted(ctx context.Context, identity string) (now extent, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := p.JS.Stream(ctx, broker.StreamName(p.Partition))
	if err != nil {
		return now, err
	}
	info := stream.CachedInfo()
	if source.IdentityOf(info) != identity {
		return now, nil // this is another stream; the next session detects it
	}
	now = p.measure(info)
	committed := p.mark.Load()
	if committed.GetStream() != identity || ids.Sequence(committed.GetSequence()) <= now.first || now.messages == 0 {
		return now, nil
	}
	recent, err := p.recent(ctx, stream, committed, now)
	if err != nil {
		return now, err
	}
	bound, pressed := purgeBelow(committed, now, p.backup, recent)
	if bound <= now.first {
		return now, nil
	}
	// The message at the watermark proves that the outcomes of this stream were committed.
	if lost, err := source.LostTail(ctx, stream, committed, now.first, now.last); err != nil || lost {
		return now, err
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(uint64(bound))); err != nil {
		return now, err
	}
	p.Metrics.Purged.Add(float64(bound - now.first))
	if pressed {
		p.Metrics.PurgedEarly.Add(float64(bound - now.first))
		p.complain("the stream was nearly full: committed commands were purged that a restore from the last backup would need. "+
			"Mark backups more often (runnel admin backup mark), or give the streams more bytes (nats.max-bytes)",
			"fill", now.fill(), "purged_below", bound)
	}
	if info, err = stream.Info(ctx); err == nil {
		p.measure(info)
	}
	return now, nil
}

// measure records how full the stream is, and from which time on a restored database could catch up from it.
func (p *Purger) measure(info *jetstream.StreamInfo) extent {
	now := extent{
		first: ids.Sequence(info.State.FirstSeq), last: ids.Sequence(info.State.LastSeq), messages: info.State.Msgs,
		bytes: info.State.Bytes, maxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}
	p.free.Store(math.MaxInt64)
	if now.maxBytes > 0 {
		p.Gauges.Fill.Set(now.fill())
		p.free.Store(max(int64(lookFill*float64(now.maxBytes))-int64(now.bytes), int64(now.maxBytes/64)))
	}
	if committed := p.mark.Load(); committed.GetTimeNs() != 0 && now.messages > 0 {
		p.Gauges.Window.Set(max(time.Unix(0, committed.GetTimeNs()).Sub(info.State.FirstTime).Seconds(), 0))
	}
	return now
}

// recent finds the first message that is not older than keptWithoutBackup, by the stream's time.
func (p *Purger) recent(ctx context.Context, stream jetstream.Stream, committed *historyv1.Watermark, now extent) (ids.Sequence, error) {
	if p.backup != nil || ids.Sequence(committed.GetSequence()) <= now.first+KeptCommands {
		return 0, nil // the value is not used
	}
	last, err := source.LastNotAfter(ctx, stream, committed.GetTimeNs()-int64(keptWithoutBackup)-1, now.first, ids.Sequence(committed.GetSequence()))
	return last + 1, err
}

// complain logs an alarm, at most once in complainInterval.
func (p *Purger) complain(message string, args ...any) {
	if now := p.Now(); now.Sub(p.alarmed) >= complainInterval {
		p.alarmed = now
		p.Log.Error(message, args...)
	}
}

// Committed stores the watermark that the store acknowledged. The caller must not change it afterwards.
func (p *Purger) Committed(mark *historyv1.Watermark) { p.mark.Store(mark) }
