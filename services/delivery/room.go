package delivery

import (
	"context"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

const (
	// keptCommands is how many committed commands stay in a stream even though a backup holds their outcome.
	keptCommands = 10_000
	// keptWithoutBackup is how long committed commands stay while no backup was ever marked, by the stream's time.
	keptWithoutBackup = time.Hour
	// pressedFill is the fill above which committed commands are purged although a restore might need them, relievedFill the
	// fill afterwards.
	pressedFill, relievedFill = 0.9, 0.75
	// lookFill is the estimated fill at which a stream is looked at before the interval is over.
	lookFill = 0.8
	// leastBetweenLooks bounds how often it is looked at then.
	leastBetweenLooks = 2 * time.Millisecond
	// watchFill is how full, and watchBytes how small a stream is that is looked at every watchInterval: it could fill up while
	// the store is away and nothing is read.
	watchFill     = 0.5
	watchBytes    = 64 << 20
	watchInterval = time.Second
	// entryOverhead is about what a message takes in a stream beside its payload.
	entryOverhead = 256
	roomTimeout   = 5 * time.Second
	// complainInterval is how often an alarm is logged at most.
	complainInterval = time.Minute
)

// extent is what a stream holds.
type extent struct {
	first, last, messages uint64
	bytes, maxBytes       uint64
}

func (x extent) fill() float64 {
	if x.maxBytes == 0 {
		return 0
	}
	return float64(x.bytes) / float64(x.maxBytes)
}

// purgeBelow returns the sequence below which a stream may be purged. pressed says that the stream is so full that this is
// above the usual bound. The result is never above the watermark, so neither the message at it nor one that is not committed
// is ever purged.
//
//	committed  is the watermark, in the stream that is looked at
//	backup     is the watermark that the last backup holds; nil when none was ever marked
//	recent     is the first sequence that is not older than keptWithoutBackup; only used when there is no backup
//
// A backup of another stream or epoch covers nothing that is in this one.
func purgeBelow(committed *historyv1.Watermark, stream extent, backup *historyv1.Watermark, recent uint64) (bound uint64, pressed bool) {
	if bugPurgeAboveWatermark {
		return stream.last + 1, false
	}
	switch {
	case backup == nil:
		bound = recent
	case backup.GetStream() == committed.GetStream() && backup.GetEpoch() == committed.GetEpoch():
		bound = backup.GetSequence()
	}
	mark := committed.GetSequence()
	bound = min(bound, mark-min(mark, keptCommands))
	if stream.fill() <= pressedFill || stream.messages == 0 {
		return bound, false
	}
	perMessage := max(stream.bytes/stream.messages, 1)
	excess := stream.bytes - uint64(relievedFill*float64(stream.maxBytes))
	needed := min(stream.first+(excess+perMessage-1)/perMessage, mark)
	if needed <= bound {
		return bound, false
	}
	return needed, true
}

// roomConfig is what a purger works with. All fields are required.
type roomConfig struct {
	JS        jetstream.JetStream
	History   historyv1.HistoryServiceClient
	Partition int
	// Interval is how often the stream is looked at when nothing happens.
	Interval time.Duration
	Now      func() time.Time
	Log      *slog.Logger
	Metrics  *metrics.Metrics
	Gauges   metrics.Gauges
}

// room purges committed commands from the stream of one partition, so that it does not fill up. It looks at the stream at an
// interval, and at once when it seems to be nearly full. grow is called by the commit loop, keep runs on its own goroutine.
type room struct {
	roomConfig

	// free is how many bytes may still be read before the stream is looked at.
	free atomic.Int64
	// mark is the watermark that the session knows to be committed.
	mark atomic.Pointer[historyv1.Watermark]
	look wake.Signal // a token when the stream is to be looked at
	// what follows belongs to keep
	backup  *historyv1.Watermark
	alarmed time.Time
}

// newRoom makes a purger. It does nothing until keep.
func newRoom(cfg roomConfig) *room {
	r := &room{roomConfig: cfg, look: wake.NewSignal()}
	r.free.Store(math.MaxInt64)
	return r
}

// grow notes that the stream holds more messages. It does not block.
func (r *room) grow(entries []source.Message) {
	var bytes int64
	for i := range entries {
		bytes += int64(len(entries[i].Payload)) + entryOverhead
	}
	if r.free.Add(-bytes) < 0 {
		r.look.Raise()
	}
}

// begin is called by a session before keep, with the watermarks of the store and of the last backup.
func (r *room) begin(stored, backup *historyv1.Watermark) {
	r.mark.Store(stored)
	r.backup = backup
	r.look.Clear()
}

// keep works until ctx ends, for the stream with this identity.
func (r *room) keep(ctx context.Context, identity string) {
	asked := time.Now()
	for {
		now, err := r.makeRoom(ctx, identity)
		if err != nil && ctx.Err() == nil {
			r.Metrics.PurgeFailures.Inc()
			r.complain("could not purge committed commands; when the stream is full it refuses new ones", "error", err)
		}
		if !pause(ctx, leastBetweenLooks, nil) || !pause(ctx, r.nextLook(now), r.look) {
			return
		}
		if time.Since(asked) >= r.Interval {
			asked = time.Now()
			r.askBackup(ctx)
		}
	}
}

// nextLook is when to look at a stream again if nothing happens.
func (r *room) nextLook(now extent) time.Duration {
	if now.maxBytes > 0 && (now.maxBytes <= watchBytes || now.fill() >= watchFill) {
		return min(watchInterval, r.Interval)
	}
	return r.Interval
}

// pause waits until d is over or there is a token in wake; it reports false when ctx has ended.
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

// askBackup asks for the last backup. While the store does not answer, the previous one counts: its bound is lower.
func (r *room) askBackup(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	answer, err := r.History.GetWatermark(ctx, &historyv1.GetWatermarkRequest{Partition: uint32(r.Partition)})
	if err == nil {
		r.backup = answer.GetBackup()
	}
}

// makeRoom looks at the stream and purges what may be purged. It returns what the stream held.
func (r *room) makeRoom(ctx context.Context, identity string) (now extent, err error) {
	ctx, cancel := context.WithTimeout(ctx, roomTimeout)
	defer cancel()
	stream, err := r.JS.Stream(ctx, broker.StreamName(r.Partition))
	if err != nil {
		return now, err
	}
	info := stream.CachedInfo()
	if source.IdentityOf(info) != identity {
		return now, nil // another stream: the next session detects it
	}
	now = r.measure(info)
	committed := r.mark.Load()
	if committed.GetStream() != identity || committed.GetSequence() <= now.first || now.messages == 0 {
		return now, nil
	}
	recent, err := r.recent(ctx, stream, committed, now)
	if err != nil {
		return now, err
	}
	bound, pressed := purgeBelow(committed, now, r.backup, recent)
	if bound <= now.first {
		return now, nil
	}
	// The message at the watermark proves that the stream is the one whose outcomes are committed.
	if lost, err := source.LostTail(ctx, stream, committed, now.first, now.last); err != nil || lost {
		return now, err
	}
	if err := stream.Purge(ctx, jetstream.WithPurgeSequence(bound)); err != nil {
		return now, err
	}
	r.Metrics.Purged.Add(float64(bound - now.first))
	if pressed {
		r.Metrics.PurgedEarly.Add(float64(bound - now.first))
		r.complain("the stream was nearly full: committed commands were purged that a restore from the last backup would need. "+
			"Mark backups more often (runnel admin backup mark), or give the streams more bytes (nats.max-bytes)",
			"fill", now.fill(), "purged_below", bound)
	}
	if info, err = stream.Info(ctx); err == nil {
		r.measure(info)
	}
	return now, nil
}

// measure notes how full the stream is, and how far back a restored database could catch up from it.
func (r *room) measure(info *jetstream.StreamInfo) extent {
	now := extent{
		first: info.State.FirstSeq, last: info.State.LastSeq, messages: info.State.Msgs,
		bytes: info.State.Bytes, maxBytes: uint64(max(info.Config.MaxBytes, 0)),
	}
	r.free.Store(math.MaxInt64)
	if now.maxBytes > 0 {
		r.Gauges.Fill.Set(now.fill())
		r.free.Store(max(int64(lookFill*float64(now.maxBytes))-int64(now.bytes), int64(now.maxBytes/64)))
	}
	if committed := r.mark.Load(); committed.GetTimeNs() != 0 && now.messages > 0 {
		r.Gauges.Window.Set(max(time.Unix(0, committed.GetTimeNs()).Sub(info.State.FirstTime).Seconds(), 0))
	}
	return now
}

// recent finds the first message that is not older than keptWithoutBackup, by the stream's time.
func (r *room) recent(ctx context.Context, stream jetstream.Stream, committed *historyv1.Watermark, now extent) (uint64, error) {
	if r.backup != nil || committed.GetSequence() <= now.first+keptCommands {
		return 0, nil // it decides nothing
	}
	last, err := source.LastNotAfter(ctx, stream, committed.GetTimeNs()-int64(keptWithoutBackup)-1, now.first, committed.GetSequence())
	return last + 1, err
}

// complain logs an alarm, at most once in complainInterval.
func (r *room) complain(message string, args ...any) {
	if now := r.Now(); now.Sub(r.alarmed) >= complainInterval {
		r.alarmed = now
		r.Log.Error(message, args...)
	}
}

// Committed notes the watermark that the store acknowledged. It must not be changed afterwards.
func (r *room) Committed(mark *historyv1.Watermark) { r.mark.Store(mark) }
