// Package commit commits batches of commands: it loads the data they need, plans, appends to the store, and publishes the
// results. If the store rejects a batch, the batch is halved until only the rejected command remains. This command
// becomes a dead letter.
package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/partition/takeover"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// Errors that end a session.
var (
	ErrSuperseded = errors.New("another worker moved the watermark")
	ErrUncertain  = errors.New("it is not known whether the last append was committed")
)

// Host is the part of the partition worker that the committer uses.
type Host interface {
	store.Host

	// SetPosition sets the watermark and the last sequence of the stream.
	SetPosition(watermark, last ids.Sequence)
	// Committed sets the watermark that the store acknowledged. The watermark is not changed afterwards.
	Committed(mark *historyv1.Watermark)
}

// Config contains the dependencies of a committer. All fields are required.
type Config struct {
	Host      Host
	Partition ids.Partition
	Stream    string // name of this worker
	History   historyv1.HistoryServiceClient
	Planner   *plan.Planner
	Cache     *cache.Cache
	Refusals  *dedupe.Refusals
	Publisher *publish.Publisher
	Recorder  *flight.Recorder
	Tracer    trace.Tracer
	Metrics   *metrics.Metrics
	Gauges    metrics.Gauges
	Log       *slog.Logger
	Now       func() time.Time

	MaxTries      int
	AppendTimeout time.Duration
}

// Committer commits the batches of one session, one after another, and publishes their results. It is not safe for
// concurrent use.
type Committer struct {
	Config

	expected *historyv1.Watermark // the watermark in the store
	Identity string               // identity of the stream
	position ids.Sequence         // the last sequence whose outcome is committed
	last     ids.Sequence         // the stream's last sequence, as last reported
	// beginEpoch means that the first append begins a new epoch.
	beginEpoch bool
}

// New makes a committer that continues from a place in the stream.
func New(cfg Config, at *takeover.Place) *Committer {
	return &Committer{Config: cfg, expected: at.Stored, Identity: at.Identity, position: at.Sequence, beginEpoch: at.BeginEpoch}
}

func (c *Committer) reads() *store.Reads {
	return &store.Reads{Host: c.Host, Timeout: c.AppendTimeout, Retries: c.Metrics.ReadRetries, Log: c.Log}
}

// Position returns the last sequence whose outcome is committed.
func (c *Committer) Position() ids.Sequence { return c.position }

// HeardLast sets the stream's last sequence.
func (c *Committer) HeardLast(last ids.Sequence) {
	c.last = last
	c.Host.SetPosition(c.position, c.last)
}

// Commit commits a batch and publishes the results. If it returns nil, the watermark is at the last entry. The store may
// reject a batch tries times. Then the batch is halved until only the rejected command remains, which becomes a dead
// letter.
func (c *Committer) Commit(ctx context.Context, entries []source.Message, tries int) error {
	tracing, spans := flight.TraceBatch(ctx, c.Tracer, c.Partition, c.Stream, entries)
	committed, err := c.tryCommit(tracing, entries, tries, spans)
	spans.End()
	if err != nil || committed {
		return err
	}
	half := len(entries) / 2
	for _, part := range [][]source.Message{entries[:half], entries[half:]} {
		tries := 1
		if len(part) == 1 {
			tries = c.MaxTries
		}
		if err := c.Commit(ctx, part, tries); err != nil {
			return err
		}
	}
	return nil
}

// tryCommit commits the batch as a whole. It returns false if the batch must be split.
func (c *Committer) tryCommit(ctx context.Context, entries []source.Message, tries int, spans *flight.BatchTrace) (bool, error) {
	if err := c.loadFor(ctx, entries); err != nil {
		return false, err
	}
	if err := c.loadFacts(ctx, entries); err != nil {
		return false, err
	}
	known := dedupe.NewFacts()
	var pause store.Backoff
	var uncertain bool // an append was sent and not answered
	for {
		batch, err := c.planFor(ctx, entries, known)
		if err != nil {
			return false, err
		}
		if bugAckBeforeCommit {
			c.Publisher.Results(answersOf(batch, entries), nil)
		}
		if bugFanoutBeforeCommit {
			c.Publisher.Events(batch.Events, publish.Origin{})
		}
		request := c.request(entries, batch)
		tracing, end := spans.Appending(ctx)
		answer, err := c.appendOnce(tracing, request)
		end(err)
		if err == nil {
			if len(answer.GetDuplicates()) == 0 {
				c.acknowledged(request.GetNext(), ids.Epoch(answer.GetEpoch()))
				c.committed(entries, batch, spans)
				return true, nil
			}
			if err := known.Learn(batch.Events, answer.GetDuplicates()); err != nil {
				return false, err
			}
			continue
		}
		c.Metrics.AppendRetries.Inc()
		kind := store.FaultOf(err)
		if kind == store.TooLarge && len(entries) == 1 {
			kind = store.Rejected // the batch cannot be smaller
		}
		switch kind {
		case store.WatermarkMoved:
			// If the answer to an append is lost, the append may be committed: then this worker itself moved the
			// watermark.
			if uncertain {
				return false, fmt.Errorf("%w: %w", ErrUncertain, err)
			}
			return false, fmt.Errorf("%w: %w", ErrSuperseded, err)
		case store.StateDiffers:
			return false, fmt.Errorf("the store refuses a batch: %w", err) // the next session loads everything again
		case store.TooLarge:
			return false, nil
		case store.Rejected:
			if tries--; tries <= 0 {
				if len(entries) > 1 {
					return false, nil
				}
				c.poisonCommand(&entries[0], known, err)
			}
		case store.Damaged:
			c.Host.Alarm(fmt.Errorf("%w; check the log with runnel admin conversations verify", err))
		case store.Unanswered:
			uncertain = true
		}
		if pause.Tries == 0 {
			c.Log.Warn("the store did not accept a batch; trying again", "commands", len(entries), "error", err)
		}
		c.Host.Sleep(pause.Next())
		if c.Host.Stopped() {
			return false, fmt.Errorf("%w: %w", store.ErrStopping, err)
		}
		c.Host.LookAtStream(ctx)
	}
}

// request builds the append of a batch.
func (c *Committer) request(entries []source.Message, batch *plan.Plan) *historyv1.AppendRequest {
	last := &entries[len(entries)-1]
	return &historyv1.AppendRequest{
		Partition: uint32(c.Partition), Expected: c.expected, BeginEpoch: c.beginEpoch,
		Next:   &historyv1.Watermark{Stream: c.Identity, Sequence: uint64(last.Sequence), TimeNs: last.TimeNs},
		Events: batch.Events, Sequences: batch.Sequences, Effects: batch.Effects, DeadLetters: batch.Letters, Refusals: batch.Refusals,
	}
}

// acknowledged sets the watermark that the store now has.
func (c *Committer) acknowledged(mark *historyv1.Watermark, epoch ids.Epoch) {
	mark.Epoch = uint64(epoch)
	c.expected, c.position, c.beginEpoch = mark, ids.Sequence(mark.GetSequence()), false
	c.Host.Committed(mark)
}

// poisonCommand marks a command as a dead letter. If the store also rejects the dead letter, the command is not the
// cause: the partition stops with an alarm until the store accepts it.
func (c *Committer) poisonCommand(e *source.Message, known *dedupe.Facts, err error) {
	if _, already := known.Poisoned[e.Sequence]; already {
		c.Host.Alarm(fmt.Errorf("the store accepts neither message %d nor its dead letter: %w", e.Sequence, err))
		return
	}
	known.Poisoned[e.Sequence] = "the store rejects it: " + err.Error()
}

// erasureFactor multiplies the time limit of an append that erases: it may affect all events of a conversation.
const erasureFactor = 24

// appendOnce calls the store once.
func (c *Committer) appendOnce(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	timeout := c.AppendTimeout
	if conversation.HasErasure(request.GetEffects()) {
		timeout *= erasureFactor
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	answer, err := c.History.Append(ctx, request)
	c.Metrics.AppendTime.Observe(time.Since(begun).Seconds())
	return answer, err
}

// planFor plans the batch. Before, it looks up the commands in the store that may have been committed earlier.
func (c *Committer) planFor(ctx context.Context, entries []source.Message, known *dedupe.Facts) (*plan.Plan, error) {
	for {
		batch := c.Planner.Make(entries, known, plan.World{State: c.Cache.State, Facts: c.Cache.Facts, Refusals: c.Refusals})
		unconfirmed := batch.Unconfirmed(entries, known)
		if len(unconfirmed) == 0 {
			return batch, nil
		}
		found, err := c.find(ctx, unconfirmed)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return batch, nil
		}
		for _, event := range found {
			known.Firsts[source.KeyOfEvent(event)] = event
		}
	}
}

// committed applies the committed batch to memory, and publishes its results.
func (c *Committer) committed(entries []source.Message, batch *plan.Plan, spans *flight.BatchTrace) {
	now := c.Now()
	c.Host.Calm()
	c.Host.SetPosition(c.position, c.last)
	c.Metrics.Batch.Observe(float64(len(entries)))
	countResults(c.Metrics, batch.Results)
	observeCommitTimes(c.Metrics, entries, now)
	c.Cache.ApplyCommitted(ChangeOf(batch), now.UnixMilli())
	c.Refusals.Add(batch.Refusals, entries[len(entries)-1].TimeMs())
	c.Gauges.Refusals.Set(float64(c.Refusals.Size()))
	spans.Publishing(entries, func(i int) flight.TraceResult { return traceResultOf(&batch.Results[i]) })
	done := flight.Commit{
		Messages: entries, Events: batch.Events, Causes: batch.Causes,
		Traceparents: spans.Traceparents(entries, batch.Causes), Committed: now,
	}
	// Results are published before events, so that a gateway can write an outcome and its event together.
	if !bugAckBeforeCommit {
		c.Publisher.Results(answersOf(batch, entries), spans.Header())
	}
	if !bugFanoutBeforeCommit {
		done.Unpublished = c.Publisher.Events(batch.Events, publish.Origin{Committed: now, Traceparents: done.Traceparents})
	}
	done.Published = c.Now()
	c.Metrics.PublishTime.Observe(done.Published.Sub(now).Seconds())
	c.Recorder.RecordCommit(&done)
	for _, letter := range batch.Letters {
		c.Log.Error("a message became a dead letter", "sequence", letter.GetSequence(), "reason", letter.GetReason())
	}
}
