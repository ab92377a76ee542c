package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"go.opentelemetry.io/otel/trace"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Errors that end a session.
var (
	errSuperseded = errors.New("another worker moved the watermark")
	errUncertain  = errors.New("it is not known whether the last append was committed")
)

// commitHost is the work on the partition, of which committing is a part.
type commitHost interface {
	readsHost

	// Alarm says that the partition stands still, Calm that it does not.
	Alarm(err error)
	Calm()
	// SetPosition notes the watermark and the last sequence of the stream.
	SetPosition(watermark, last uint64)
	// Committed notes the watermark that the store acknowledged. It is not changed afterwards.
	Committed(mark *historyv1.Watermark)
}

// commitConfig is what a committer works with. All fields are required.
type commitConfig struct {
	Host      commitHost
	Partition int
	Stream    string // its name
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

// committer commits batches of one session, one after the other, and publishes them. It is not safe for concurrent use.
type committer struct {
	commitConfig

	expected *historyv1.Watermark // what the store has
	identity string               // of the stream
	position uint64               // the last sequence whose outcome is committed
	last     uint64               // the stream's last sequence, when last heard of
	// beginEpoch says that the first append begins an epoch.
	beginEpoch bool
}

// newCommitter makes a committer that goes on from a place.
func newCommitter(cfg commitConfig, at *place) *committer {
	return &committer{commitConfig: cfg, expected: at.stored, identity: at.identity, position: at.sequence, beginEpoch: at.beginEpoch}
}

func (c *committer) reads() *reads {
	return &reads{Host: c.Host, Timeout: c.AppendTimeout, Retries: c.Metrics.ReadRetries, Log: c.Log}
}

// at is the last sequence whose outcome is committed.
func (c *committer) at() uint64 { return c.position }

// heard notes the stream's last sequence.
func (c *committer) heard(last uint64) {
	c.last = last
	c.Host.SetPosition(c.position, c.last)
}

// commit has a batch committed and then tells of it. When it returns nil the watermark stands at the last entry. The
// store may find fault with a batch tries times; then the batch is halved until the one command that is to blame
// stands alone, and is put aside.
func (c *committer) commit(ctx context.Context, entries []source.Message, tries int) error {
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
		if err := c.commit(ctx, part, tries); err != nil {
			return err
		}
	}
	return nil
}

// tryCommit commits the batch as a whole. It returns false if the batch must be split.
func (c *committer) tryCommit(ctx context.Context, entries []source.Message, tries int, spans *flight.BatchTrace) (bool, error) {
	if err := c.loadFor(ctx, entries); err != nil {
		return false, err
	}
	if err := c.loadFacts(ctx, entries); err != nil {
		return false, err
	}
	known := dedupe.NewFacts()
	var pause backoff
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
		answer, err := c.append(tracing, request)
		end(err)
		if err == nil {
			if len(answer.GetDuplicates()) == 0 {
				c.acknowledged(request.GetNext(), answer.GetEpoch())
				c.committed(entries, batch, spans)
				return true, nil
			}
			if err := known.Learn(batch.Events, answer.GetDuplicates()); err != nil {
				return false, err
			}
			continue
		}
		c.Metrics.AppendRetries.Inc()
		kind := faultOf(err)
		if kind == faultTooMuch && len(entries) == 1 {
			kind = faultPoison // it cannot be less
		}
		switch kind {
		case faultMoved:
			// The answer to an append may be lost though it was committed: then it was ourselves who moved the watermark.
			if uncertain {
				return false, fmt.Errorf("%w: %w", errUncertain, err)
			}
			return false, fmt.Errorf("%w: %w", errSuperseded, err)
		case faultTaken:
			return false, fmt.Errorf("the store has other events than were expected: %w", err)
		case faultTooMuch:
			return false, nil
		case faultPoison:
			if tries--; tries <= 0 {
				if len(entries) > 1 {
					return false, nil
				}
				c.poisonCommand(&entries[0], known, err)
			}
		case faultAway:
			uncertain = true
		}
		if pause.tries == 0 {
			c.Log.Warn("the store did not take a batch; trying again", "commands", len(entries), "error", err)
		}
		c.Host.Sleep(pause.next())
		if c.Host.Stopped() {
			return false, fmt.Errorf("%w: %w", errStopping, err)
		}
		c.Host.LookAtStream(ctx)
	}
}

// request is the append of a batch.
func (c *committer) request(entries []source.Message, batch *plan.Plan) *historyv1.AppendRequest {
	last := &entries[len(entries)-1]
	return &historyv1.AppendRequest{
		Partition: uint32(c.Partition), Expected: c.expected, BeginEpoch: c.beginEpoch,
		Next:   &historyv1.Watermark{Stream: c.identity, Sequence: last.Sequence, TimeNs: last.TimeNs},
		Events: batch.Events, Sequences: batch.Sequences, Effects: batch.Effects, DeadLetters: batch.Letters, Refusals: batch.Refusals,
	}
}

// acknowledged notes the watermark that the store has now.
func (c *committer) acknowledged(mark *historyv1.Watermark, epoch uint64) {
	mark.Epoch = epoch
	c.expected, c.position, c.beginEpoch = mark, mark.GetSequence(), false
	c.Host.Committed(mark)
}

// poisonCommand marks a command as a dead letter. If the store does not take the dead letter either, no command is to blame: the
// partition stops with an alarm until the store takes it.
func (c *committer) poisonCommand(e *source.Message, known *dedupe.Facts, err error) {
	if _, already := known.Poisoned[e.Sequence]; already {
		c.Host.Alarm(fmt.Errorf("the store takes neither message %d nor its dead letter: %w", e.Sequence, err))
		return
	}
	c.Log.Error("a command is put aside as a dead letter", "sequence", e.Sequence, "error", err)
	known.Poisoned[e.Sequence] = "the store does not take it: " + err.Error()
}

// erasureFactor is how much longer than others an append may take that erases: it may reach all events of a conversation.
const erasureFactor = 24

// append asks the store once.
func (c *committer) append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
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

// planFor plans the batch, having asked the store about commands that look refused.
func (c *committer) planFor(ctx context.Context, entries []source.Message, known *dedupe.Facts) (*plan.Plan, error) {
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

// committed makes the batch part of what the session knows, and tells everybody.
func (c *committer) committed(entries []source.Message, batch *plan.Plan, spans *flight.BatchTrace) {
	now := c.Now()
	c.Host.Calm()
	c.Host.SetPosition(c.position, c.last)
	c.Metrics.Batch.Observe(float64(len(entries)))
	countResults(c.Metrics, batch.Results)
	observeCommitTimes(c.Metrics, entries, now)
	c.Cache.ApplyCommitted(changeOf(batch), now.UnixMilli())
	c.Refusals.Add(batch.Refusals, entries[len(entries)-1].TimeMs())
	c.Gauges.Refusals.Set(float64(c.Refusals.Size()))
	spans.Publishing(entries, func(i int) flight.TraceResult { return traceResultOf(&batch.Results[i]) })
	done := flight.Commit{
		Messages: entries, Events: batch.Events, Causes: batch.Causes,
		Traceparents: spans.Traceparents(entries, batch.Causes), Committed: now,
	}
	if !bugFanoutBeforeCommit {
		done.Unpublished = c.Publisher.Events(batch.Events, publish.Origin{Committed: now, Traceparents: done.Traceparents})
	}
	if !bugAckBeforeCommit {
		c.Publisher.Results(answersOf(batch, entries), spans.Header())
	}
	done.Published = c.Now()
	c.Metrics.PublishTime.Observe(done.Published.Sub(now).Seconds())
	c.Recorder.RecordCommit(&done)
	for _, letter := range batch.Letters {
		c.Log.Error("a message was put aside as a dead letter", "sequence", letter.GetSequence(), "reason", letter.GetReason())
	}
}

// loadFor brings the conversations of a batch into memory.
func (c *committer) loadFor(ctx context.Context, entries []source.Message) error {
	wanted := make(map[string]struct{}, min(len(entries), 64))
	for i := range entries {
		// Ids that no conversation can have are refused without a state, and the store would refuse to look for them.
		if key := source.KeyOf(entries[i].Command); key.Committable() {
			wanted[key.Conversation] = struct{}{}
		}
	}
	return c.load(ctx, c.Cache.Missing(nil, wanted))
}

// load brings conversations into memory.
func (c *committer) load(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return ask(ctx, c.reads(), "states", ids, func(ctx context.Context, ids []string) error {
		answer, err := c.History.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: ids})
		if err == nil {
			c.Cache.AddLoaded(ids, answer.GetConversations(), c.Now().UnixMilli())
		}
		return err
	})
}

// find gives the first outcomes of those commands that were committed.
func (c *committer) find(ctx context.Context, keys []source.CommandKey) ([]*conversationv1.Event, error) {
	var found []*conversationv1.Event
	err := ask(ctx, c.reads(), "first outcomes", keys, func(ctx context.Context, keys []source.CommandKey) error {
		request := &historyv1.FindCommandsRequest{Commands: make([]*historyv1.CommandKey, len(keys))}
		for i, key := range keys {
			request.Commands[i] = key.Proto()
		}
		answer, err := c.History.FindCommands(ctx, request)
		if err == nil {
			found = append(found, answer.GetEvents()...)
		}
		return err
	})
	return found, err
}

// republish tells once more what came of commands that were committed before the takeover: their owner may have died
// between the commit and the telling. Refusals that are remembered are told, too.
func (c *committer) republish(ctx context.Context, entries []source.Message) error {
	keys := make([]source.CommandKey, 0, len(entries))
	seen := make(map[source.CommandKey]struct{}, len(entries))
	for i := range entries {
		key := source.KeyOf(entries[i].Command)
		if _, twice := seen[key]; twice || !key.Committable() {
			continue
		}
		seen[key] = struct{}{}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil
	}
	events, err := c.find(ctx, keys)
	if err != nil {
		return err
	}
	firsts := make(map[source.CommandKey]*conversationv1.Event, len(events))
	for _, event := range events {
		firsts[source.KeyOfEvent(event)] = event
	}
	answers := make([]publish.Answer, 0, len(entries))
	for i := range entries {
		command := entries[i].Command
		if command.GetInbox() == "" {
			continue
		}
		var v plan.Result
		if first := firsts[source.KeyOf(command)]; first != nil {
			v.SetRepeated(first, command, false)
			// An event bears the time of the message it came of.
			v.Repeated = v.Repeated && first.GetTimeMs() != entries[i].TimeMs()
		} else if known := c.Refusals.Find(source.KeyOf(command), command.GetAttempt(), entries[i].TimeMs()); known != nil && !known.Stale(entries[i].TimeMs()) {
			v.Refusal = known.Err
		} else {
			continue
		}
		answers = append(answers, publish.Answer{Inbox: command.GetInbox(), Result: &brokerv1.Result{Sender: command.GetSender(), Outcome: v.Outcome(command), Salt: command.GetSalt()}})
	}
	slices.SortFunc(events, func(a, b *conversationv1.Event) int {
		return cmp.Or(cmp.Compare(a.GetConversationId(), b.GetConversationId()), cmp.Compare(a.GetSeq(), b.GetSeq()))
	})
	unpublished := c.Publisher.Events(events, publish.Origin{})
	c.Publisher.Results(answers, nil)
	c.Metrics.Republished.Add(float64(len(events)))
	c.Recorder.RecordRepublished(events, c.Now(), unpublished)
	return nil
}
