// Package partition works on one partition: it takes over, reads, commits and publishes, until its lease is lost or an unexpected
// error makes it restart from the store.
//
//	worker.go    sessions, retries
//	alarm.go     the alarm of a stopped partition, and until when it lasts
//	session.go   one session: read, commit, publish
//	newer.go     commands of newer versions
//	clocks.go    compares admission times with the stream's times
//	takeover/    finds where to continue: compares the watermark with the stream
//	reader/      reads the stream in order into a bounded queue
//	plan/        makes a plan for a batch of commands; pure
//	commit/      appends the plan to the store, handles all failures, and publishes the results
package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/commit"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
	"github.com/runnelhq/runnel/services/delivery/purge"
	"github.com/runnelhq/runnel/services/delivery/store"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// errResync ends a session because messages that it published or read recently may be lost.
var errResync = errors.New("the connection to NATS was lost in the meantime")

// States of a partition as operators see them; a third state is "stopped: " and the reason.
const (
	stateStarting = "starting"
	stateRunning  = "running"
	stoppedPrefix = "stopped: "
)

// IsStopped reports whether a partition in this state is stopped with an alarm.
func IsStopped(state string) bool { return strings.HasPrefix(state, stoppedPrefix) }

const (
	// holeRetry is how often a stopped partition retries.
	holeRetry   = 5 * time.Second
	lookTimeout = 250 * time.Millisecond
)

// Config contains the settings of the work on a partition; see the configuration of the service.
type Config struct {
	StopTimeout, AppendTimeout, FlushInterval, PurgeInterval time.Duration
	MaxBatch, MaxBatchBytes, MaxTries, RepublishCommands     int
	CacheMembers, MaxRefusals                                int
}

// Deps are the dependencies of the work on a partition. All fields are required.
type Deps struct {
	Name       string
	Partition  ids.Partition
	Partitions int
	Config     Config
	Bus        bus.Bus
	JS         jetstream.JetStream
	History    historyv1.HistoryServiceClient
	// EnsureStream creates the streams if the partition's stream does not exist.
	EnsureStream func(ctx context.Context, partition ids.Partition) error
	// HandOver moves the partition to a worker that knows a level, and returns that worker's name; empty if there is
	// none.
	HandOver     func(ctx context.Context, partition ids.Partition, level conversation.Level) (worker string, err error)
	Acknowledged *takeover.Acknowledged
	Log          *slog.Logger
	Metrics      *metrics.Metrics
	Recorder     *flight.Recorder
	Tracer       trace.Tracer
	Now          func() time.Time
}

// Worker works on one partition while its process holds the lease. It runs one session after another; each begins with a
// takeover and ends with an error.
//
//	begin ─▶ starting ─takeOver─▶ running ─┐
//	            ▲                          │ anything unexpected: drop everything in memory, start again
//	            ├──────────────────────────┘
//	            ├──── superseded: wait until the lease is confirmed
//	            ├──── hole, clocks that disagree, a command of a newer version, or a store that refuses the same twice:
//	            │     stopped with an alarm, retried every few seconds
//	          stop ─▶ the append in flight is finished and published ─▶ done
type Worker struct {
	Deps

	gauges       metrics.Gauges
	planner      plan.Planner
	purger       *purge.Purger
	clocks       clocks
	alarms       alarms
	stopping     chan struct{}
	stopOnce     sync.Once
	cutOff       context.CancelFunc
	confirmation wake.Signal // raised when the lease was renewed
	resyncs      wake.Signal // raised when the connection to NATS was restored
	finished     chan struct{}

	mu        sync.Mutex
	state     string
	watermark ids.Sequence
	last      ids.Sequence
	placed    bool // watermark and last were set
	stuck     stuck
	cache     *cache.Cache // cursors of the running session; nil between sessions
}

// NewWorker creates the worker of one partition. It does nothing until Run. cutOff cancels the context of Run. It is
// called if the work has not ended within the stop timeout.
func NewWorker(deps Deps, cutOff context.CancelFunc) *Worker {
	w := &Worker{
		Deps: deps, gauges: deps.Metrics.Partition(deps.Partition),
		planner:  plan.Planner{Partition: deps.Partition, Partitions: deps.Partitions, Apply: conversation.Apply},
		stopping: make(chan struct{}), cutOff: cutOff, confirmation: wake.NewSignal(), resyncs: wake.NewSignal(),
		finished: make(chan struct{}), state: stateStarting,
	}
	w.purger = purge.New(purge.Config{
		JS: w.JS, History: w.History, Partition: w.Partition, Interval: w.Config.PurgeInterval, Now: w.Now,
		Log: w.Log, Metrics: w.Metrics, Gauges: w.gauges,
	})
	return w
}

// Stop tells the worker to finish the append in flight and end. It does not wait.
func (w *Worker) Stop() {
	w.stopOnce.Do(func() {
		close(w.stopping)
		time.AfterFunc(w.Config.StopTimeout, w.cutOff)
	})
}

// Done is closed when the worker has ended.
func (w *Worker) Done() <-chan struct{} { return w.finished }

// Confirm reports that the lease was renewed.
func (w *Worker) Confirm() { w.confirmation.Raise() }

// Resync reports that messages that the worker published or read recently may have been lost.
func (w *Worker) Resync() { w.resyncs.Raise() }

// Run works until Stop.
func (w *Worker) Run(ctx context.Context) {
	defer close(w.finished)
	w.gauges.Owned.Set(1)
	defer w.gauges.Forget()
	var pause store.Backoff
	for {
		if !w.alarms.raised() {
			w.setState(stateStarting)
		}
		begun := time.Now()
		err := w.session(ctx)
		if w.Stopped() {
			return
		}
		if time.Since(begun) > store.BackoffCeiling {
			pause = store.Backoff{}
		}
		switch {
		case errors.Is(err, store.ErrStopping):
			return
		case errors.Is(err, commit.ErrUncertain), errors.Is(err, errResync):
			w.Log.Info("starting a new session", "reason", err)
		case errors.Is(err, commit.ErrSuperseded):
			w.Metrics.Superseded.Inc()
			w.Log.Warn("released the partition until the lease is confirmed", "reason", err)
			w.awaitConfirmation()
		case errors.Is(err, takeover.ErrHole), errors.Is(err, ErrClocks), errors.Is(err, errTooNew):
			w.Alarm(err)
			w.Sleep(holeRetry)
		case w.repeats(err):
			w.Alarm(fmt.Errorf("the store refuses the same again after everything was loaded anew: %w", err))
			w.Sleep(holeRetry)
		default:
			w.Log.Warn("the partition is interrupted; trying again", "error", err)
			w.Sleep(pause.Next())
			w.LookAtStream(ctx)
		}
	}
}

// session works from one takeover until an error or Stop ends it.
func (w *Worker) session(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w.resyncs.Clear()
	at, err := w.finder().Find(ctx)
	if err != nil {
		return err
	}
	w.Metrics.Takeovers.Inc()
	s := newSession(w, at)
	if err := s.commits.LoadRefusals(ctx, at.Stored.GetTimeNs()/1e6); err != nil {
		return err
	}
	w.setCache(s.cache)
	defer w.setCache(nil)

	acks, err := s.listen()
	if err != nil {
		return err
	}
	defer acks()

	// End flushing after the loop, so that the cursors moved by the last batch are stored.
	flushing, endFlushing := context.WithCancel(ctx)
	var flusher sync.WaitGroup
	flusher.Go(func() { s.flusher().Run(flushing) })
	w.purger.Begin(at.Stored, at.Backup)
	flusher.Go(func() { w.purger.Run(flushing, s.commits.Identity) })
	defer flusher.Wait()
	defer endFlushing()

	stop, err := s.read(ctx, at.From)
	if err != nil {
		return err
	}
	defer stop()

	s.forgetBarrier(at.From)
	if !w.isStuck() && !w.alarms.barred() {
		w.Calm()
		w.setState(stateRunning)
	}
	w.Log.Debug("took over the partition", "watermark", at.Sequence, "stream_last", at.Last)
	return s.loop(ctx)
}

// stuck records a fault that reloading did not remove, and how often it occurred while the watermark did not move.
type stuck struct {
	at    ids.Sequence
	times int
}

// repeats reports whether an earlier session ended with a lasting fault of the store at the present watermark. After the
// first such fault, this worker's memory may be wrong, so the next session loads everything again.
func (w *Worker) repeats(err error) bool {
	if !store.FaultOf(err).Lasting() {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stuck.at != w.watermark {
		w.stuck = stuck{at: w.watermark}
	}
	w.stuck.times++
	return w.stuck.times > 1
}

// isStuck reports whether the alarm of repeats is raised and nothing was committed since. A new session does not end this
// alarm.
func (w *Worker) isStuck() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stuck.times > 1 && w.stuck.at == w.watermark
}

func (w *Worker) finder() *takeover.Finder {
	return &takeover.Finder{
		JS: w.JS, History: w.History, Partition: w.Partition, Republish: w.Config.RepublishCommands,
		EnsureStream: func(ctx context.Context) error { return w.EnsureStream(ctx, w.Partition) },
		Acknowledged: w.Acknowledged, Located: w.SetPosition, JudgeNewer: w.cannotJudge, Log: w.Log, Metrics: w.Metrics,
	}
}

// Stopped reports whether Stop was called.
func (w *Worker) Stopped() bool {
	select {
	case <-w.stopping:
		return true
	default:
		return false
	}
}

// Sleep waits for d, or until Stop.
func (w *Worker) Sleep(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.stopping:
	}
}

func (w *Worker) awaitConfirmation() {
	w.confirmation.Clear()
	select {
	case <-w.confirmation:
	case <-w.stopping:
	}
}

func (w *Worker) setState(state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
}

// Running reports whether commands of the partition are being committed.
func (w *Worker) Running() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state == stateRunning
}

func (w *Worker) setCache(c *cache.Cache) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cache = c
}

// LookAtStream updates the lag while nothing can be committed. Errors are ignored, because it is called again.
func (w *Worker) LookAtStream(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	stream, err := w.JS.Stream(ctx, broker.StreamName(w.Partition))
	if err != nil {
		return
	}
	w.mu.Lock()
	watermark, placed := w.watermark, w.placed
	w.mu.Unlock()
	if placed {
		w.SetPosition(watermark, ids.Sequence(stream.CachedInfo().State.LastSeq))
	}
}

// SetPosition records the watermark and the last sequence of the stream.
func (w *Worker) SetPosition(watermark, last ids.Sequence) {
	last = max(last, watermark)
	w.gauges.Watermark.Set(float64(watermark))
	w.gauges.Lag.Set(float64(last - watermark))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watermark, w.last, w.placed = watermark, last, true
}

// Cursors returns the cursors of a conversation's members, by rising user id; nil if the conversation is not in memory.
func (w *Worker) Cursors(conversationID ids.Conversation) []*conversationv1.Cursor {
	w.mu.Lock()
	cached := w.cache
	w.mu.Unlock()
	if cached == nil {
		return nil
	}
	return cached.Cursors(conversationID)
}

// Describe returns the state of the partition, for operators.
func (w *Worker) Describe() *deliveryv1.Partition {
	w.mu.Lock()
	defer w.mu.Unlock()
	return &deliveryv1.Partition{Partition: uint32(w.Partition), Watermark: uint64(w.watermark), StreamLast: uint64(w.last), State: w.state}
}

// Committed records the watermark that the store acknowledged.
func (w *Worker) Committed(mark *historyv1.Watermark) {
	w.alarms.pass(mark.GetStream(), ids.Sequence(mark.GetSequence()))
	w.Acknowledged.Set(mark)
	w.purger.Committed(mark)
}
