package delivery

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// errResync ends a session: what it published or read lately may be lost.
var errResync = errors.New("the connection to NATS was lost in between")

// States of a partition as operators see them; a third is "stopped: " and why.
const (
	stateStarting = "starting"
	stateRunning  = "running"
)

const (
	// holeRetry is how often a partition that stopped at a hole looks again, and alarmInterval how often it says so.
	holeRetry     = 5 * time.Second
	lookTimeout   = 250 * time.Millisecond
	alarmInterval = time.Minute
)

// ownerConfig tunes the work on a partition; see the configuration of the service.
type ownerConfig struct {
	StopTimeout, AppendTimeout, FlushInterval, PurgeInterval time.Duration
	MaxBatch, MaxBatchBytes, MaxTries, RepublishCommands     int
	CacheMembers, MaxRefusals                                int
}

// ownerDeps is what the work on a partition needs. All fields are required.
type ownerDeps struct {
	Worker                string
	Partition, Partitions int
	Config                ownerConfig
	NATS                  *nats.Conn
	JS                    jetstream.JetStream
	History               historyv1.HistoryServiceClient
	// EnsureStream makes the streams if that of the partition does not exist.
	EnsureStream func(ctx context.Context, partition int) error
	// HandOver moves the partition to a worker that knows a level, and returns its name; empty when there is none.
	HandOver     func(ctx context.Context, partition int, level conversation.Level) (worker string, err error)
	Acknowledged *acknowledged
	Log          *slog.Logger
	Metrics      *metrics.Metrics
	Recorder     *flight.Recorder
	Tracer       trace.Tracer
	Now          func() time.Time
}

// owner works on one partition for as long as it is this worker's. Its life is a row of sessions; each begins with a
// takeover and ends with an error.
//
//	begin ─▶ starting ─takeOver─▶ running ─┐
//	            ▲                          │ anything unexpected: forget everything, begin anew
//	            ├──────────────────────────┘
//	            ├──── superseded: wait until the lease says again that the partition is ours
//	            ├──── hole, clocks that disagree, or a command of a newer version: stopped with an alarm, look again
//	            │     now and then
//	          stop ─▶ the append in flight is finished and told ─▶ done
type owner struct {
	ownerDeps

	gauges       metrics.Gauges
	planner      plan.Planner
	room         *room
	clocks       clocks
	alarmed      time.Time
	stopping     chan struct{}
	stopOnce     sync.Once
	cutOff       context.CancelFunc
	confirmation wake.Signal // raised when the lease was renewed
	resyncs      wake.Signal // raised when the connection to NATS came back
	finished     chan struct{}

	mu        sync.Mutex
	state     string
	watermark uint64
	last      uint64
	placed    bool         // watermark and last were set
	cache     *cache.Cache // of the session that runs; nil between sessions
}

// newOwner makes the work on a partition. It does nothing until run. cutOff ends the context of run; it is called when the work
// has not ended within the stop timeout.
func newOwner(deps ownerDeps, cutOff context.CancelFunc) *owner {
	o := &owner{
		ownerDeps: deps, gauges: deps.Metrics.Partition(deps.Partition),
		planner:  plan.Planner{Partition: deps.Partition, Partitions: deps.Partitions, Apply: conversation.Apply},
		stopping: make(chan struct{}), cutOff: cutOff, confirmation: wake.NewSignal(), resyncs: wake.NewSignal(),
		finished: make(chan struct{}), state: stateStarting,
	}
	o.room = newRoom(roomConfig{
		JS: o.JS, History: o.History, Partition: o.Partition, Interval: o.Config.PurgeInterval, Now: o.Now,
		Log: o.Log, Metrics: o.Metrics, Gauges: o.gauges,
	})
	return o
}

// Stop asks the owner to finish what is in flight and end. It does not wait.
func (o *owner) Stop() {
	o.stopOnce.Do(func() {
		close(o.stopping)
		time.AfterFunc(o.Config.StopTimeout, o.cutOff)
	})
}

// Done is closed when the owner has ended.
func (o *owner) Done() <-chan struct{} { return o.finished }

// Confirm tells the owner that the store still counts the partition as this worker's.
func (o *owner) Confirm() { o.confirmation.Raise() }

// resync tells the owner that what it published or read lately may have been lost.
func (o *owner) resync() { o.resyncs.Raise() }

// run works until Stop. It gives back everything it holds.
func (o *owner) run(ctx context.Context) {
	defer close(o.finished)
	o.gauges.Owned.Set(1)
	defer o.gauges.Forget()
	var pause backoff
	for {
		if o.alarmed.IsZero() {
			o.setState(stateStarting)
		}
		begun := time.Now()
		err := o.session(ctx)
		if o.Stopped() {
			return
		}
		if time.Since(begun) > backoffCeiling {
			pause = backoff{}
		}
		switch {
		case errors.Is(err, errStopping):
			return
		case errors.Is(err, errUncertain), errors.Is(err, errResync):
			o.Log.Info("beginning anew", "reason", err)
		case errors.Is(err, errSuperseded):
			o.Metrics.Superseded.Inc()
			o.Log.Warn("gave the partition up until the lease is confirmed", "reason", err)
			o.awaitConfirmation()
		case errors.Is(err, errHole), errors.Is(err, errClocks), errors.Is(err, errTooNew):
			o.Alarm(err)
			o.Sleep(holeRetry)
		default:
			o.Log.Warn("the partition is interrupted; trying again", "error", err)
			o.Sleep(pause.next())
			o.LookAtStream(ctx)
		}
	}
}

// session works from one takeover to the first thing that does not fit.
func (o *owner) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.resyncs.Clear()
	at, err := o.finder().takeOver(ctx)
	if err != nil {
		return err
	}
	o.Metrics.Takeovers.Inc()
	s := newSession(o, at)
	if err := s.commits.loadRefusals(ctx, at.stored.GetTimeNs()/1e6); err != nil {
		return err
	}
	o.setCache(s.cache)
	defer o.setCache(nil)

	acks, err := s.listen()
	if err != nil {
		return err
	}
	defer acks()

	// Flushing ends after the loop, with what the last batch moved.
	flushing, endFlushing := context.WithCancel(ctx)
	var flusher sync.WaitGroup
	flusher.Go(func() { s.flusher().Run(flushing) })
	o.room.begin(at.stored, at.backup)
	flusher.Go(func() { o.room.keep(flushing, s.commits.identity) })
	defer flusher.Wait()
	defer endFlushing()

	stop, err := s.read(ctx, at.from)
	if err != nil {
		return err
	}
	defer stop()

	o.Calm()
	o.setState(stateRunning)
	o.Log.Debug("took over the partition", "watermark", at.sequence, "stream_last", at.last)
	return s.loop(ctx)
}

func (o *owner) finder() *finder {
	return &finder{
		JS: o.JS, History: o.History, Partition: o.Partition, Republish: o.Config.RepublishCommands,
		EnsureStream: func(ctx context.Context) error { return o.EnsureStream(ctx, o.Partition) },
		Acknowledged: o.Acknowledged, Located: o.SetPosition, JudgeNewer: o.cannotJudge, Log: o.Log, Metrics: o.Metrics,
	}
}

// Stopped reports whether Stop was called.
func (o *owner) Stopped() bool {
	select {
	case <-o.stopping:
		return true
	default:
		return false
	}
}

// Sleep waits, but not beyond Stop.
func (o *owner) Sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-o.stopping:
	}
}

func (o *owner) awaitConfirmation() {
	o.confirmation.Clear()
	select {
	case <-o.confirmation:
	case <-o.stopping:
	}
}

// Alarm says that the partition stands still and somebody has to look, at most once in alarmInterval.
func (o *owner) Alarm(err error) {
	o.gauges.Stopped.Set(1)
	o.setState("stopped: " + err.Error())
	if now := time.Now(); now.Sub(o.alarmed) >= alarmInterval {
		o.alarmed = now
		o.Log.Error("the partition is stopped", "reason", err)
	}
}

// Calm ends the alarm, if there was one.
func (o *owner) Calm() {
	if !o.alarmed.IsZero() {
		o.alarmed = time.Time{}
		o.gauges.Stopped.Set(0)
		o.setState(stateRunning)
		o.Log.Info("the partition goes on")
	}
}

func (o *owner) setState(state string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = state
}

func (o *owner) setCache(b *cache.Cache) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cache = b
}

// LookAtStream finds out how long the stream has grown, for the lag, while nothing can be committed. It may fail: it is asked again.
func (o *owner) LookAtStream(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stream, err := o.JS.Stream(ctx, broker.StreamName(o.Partition))
	if err != nil {
		return
	}
	o.mu.Lock()
	watermark, placed := o.watermark, o.placed
	o.mu.Unlock()
	if placed {
		o.SetPosition(watermark, stream.CachedInfo().State.LastSeq)
	}
}

// SetPosition notes the watermark and the last sequence of the stream.
func (o *owner) SetPosition(watermark, last uint64) {
	last = max(last, watermark)
	o.gauges.Watermark.Set(float64(watermark))
	o.gauges.Lag.Set(float64(last - watermark))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.watermark, o.last, o.placed = watermark, last, true
}

// cursors are those of a conversation's members, by rising user id, as far as they are in memory.
func (o *owner) cursors(conversationID string) []*conversationv1.Cursor {
	o.mu.Lock()
	cached := o.cache
	o.mu.Unlock()
	if cached == nil {
		return nil
	}
	return cached.Cursors(conversationID)
}

// describe tells how the owner is.
func (o *owner) describe() *deliveryv1.Partition {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &deliveryv1.Partition{Partition: uint32(o.Partition), Watermark: o.watermark, StreamLast: o.last, State: o.state}
}

// Committed notes the watermark that the store acknowledged.
func (o *owner) Committed(mark *historyv1.Watermark) {
	o.Acknowledged.set(mark)
	o.room.Committed(mark)
}
