package delivery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// commit has a batch committed and then tells of it. When it returns nil the watermark stands at the last entry. The
// store may find fault with a batch tries times; then the batch is halved until the one command that is to blame
// stands alone, and is put aside.
func (s *session) commit(ctx context.Context, entries []source.Message, tries int) error {
	tracing, trace := flight.TraceBatch(ctx, s.owner.Tracer, s.owner.Partition, s.stream, entries)
	committed, err := s.tryCommit(tracing, entries, tries, trace)
	trace.End()
	if err != nil || committed {
		return err
	}
	half := len(entries) / 2
	for _, part := range [][]source.Message{entries[:half], entries[half:]} {
		tries := 1
		if len(part) == 1 {
			tries = s.owner.Config.MaxTries
		}
		if err := s.commit(ctx, part, tries); err != nil {
			return err
		}
	}
	return nil
}

// tryCommit commits the batch as a whole. It returns false if the batch must be split.
func (s *session) tryCommit(ctx context.Context, entries []source.Message, tries int, trace *flight.BatchTrace) (bool, error) {
	o := s.owner
	if err := s.loadFor(ctx, entries); err != nil {
		return false, err
	}
	if err := s.loadFacts(ctx, entries); err != nil {
		return false, err
	}
	known := dedupe.NewFacts()
	var pause backoff
	var uncertain bool // an append was sent and not answered
	for {
		batch, err := s.planFor(ctx, entries, known)
		if err != nil {
			return false, err
		}
		if bugAckBeforeCommit {
			s.publisher.Results(answersOf(batch, entries), nil)
		}
		if bugFanoutBeforeCommit {
			s.publisher.Events(batch.Events, publish.Origin{})
		}
		request := s.request(entries, batch)
		tracing, end := trace.Appending(ctx)
		answer, err := s.append(tracing, request)
		end(err)
		if err == nil {
			if len(answer.GetDuplicates()) == 0 {
				s.acknowledged(request.GetNext(), answer.GetEpoch())
				s.committed(entries, batch, trace)
				return true, nil
			}
			if err := known.Learn(batch.Events, answer.GetDuplicates()); err != nil {
				return false, err
			}
			continue
		}
		o.Metrics.AppendRetries.Inc()
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
				s.poison(&entries[0], known, err)
			}
		case faultAway:
			uncertain = true
		}
		if pause.tries == 0 {
			o.Log.Warn("the store did not take a batch; trying again", "commands", len(entries), "error", err)
		}
		o.sleep(pause.next())
		if o.stopped() {
			return false, fmt.Errorf("%w: %w", errStopping, err)
		}
		o.look(ctx)
	}
}

// request is the append of a batch.
func (s *session) request(entries []source.Message, batch *plan.Plan) *historyv1.AppendRequest {
	last := &entries[len(entries)-1]
	return &historyv1.AppendRequest{
		Partition: uint32(s.owner.Partition), Expected: s.expected, BeginEpoch: s.beginEpoch,
		Next:   &historyv1.Watermark{Stream: s.identity, Sequence: last.Sequence, TimeNs: last.TimeNs},
		Events: batch.Events, Sequences: batch.Sequences, Effects: batch.Effects, DeadLetters: batch.Letters, Refusals: batch.Refusals,
	}
}

// acknowledged notes the watermark that the store has now.
func (s *session) acknowledged(mark *historyv1.Watermark, epoch uint64) {
	mark.Epoch = epoch
	s.expected, s.position, s.beginEpoch = mark, mark.GetSequence(), false
	s.owner.Acknowledged.set(mark)
	s.owner.room.mark.Store(mark)
}

// poison marks a command as a dead letter. If the store does not take the dead letter either, no command is to blame: the
// partition stops with an alarm until the store takes it.
func (s *session) poison(e *source.Message, known *dedupe.Facts, err error) {
	if _, already := known.Poisoned[e.Sequence]; already {
		s.owner.alarm(fmt.Errorf("the store takes neither message %d nor its dead letter: %w", e.Sequence, err))
		return
	}
	s.owner.Log.Error("a command is put aside as a dead letter", "sequence", e.Sequence, "error", err)
	known.Poisoned[e.Sequence] = "the store does not take it: " + err.Error()
}

// erasureFactor is how much longer than others an append may take that erases: it may reach all events of a conversation.
const erasureFactor = 24

// append asks the store once.
func (s *session) append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	timeout := s.owner.Config.AppendTimeout
	if conversation.HasErasure(request.GetEffects()) {
		timeout *= erasureFactor
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	begun := time.Now()
	answer, err := s.owner.History.Append(ctx, request)
	s.owner.Metrics.AppendTime.Observe(time.Since(begun).Seconds())
	return answer, err
}

// planFor plans the batch, having asked the store about commands that look refused.
func (s *session) planFor(ctx context.Context, entries []source.Message, known *dedupe.Facts) (*plan.Plan, error) {
	for {
		batch := s.owner.planner.Make(entries, known, plan.World{State: s.cache.State, Facts: s.cache.Facts, Refusals: s.refusals})
		unconfirmed := batch.Unconfirmed(entries, known)
		if len(unconfirmed) == 0 {
			return batch, nil
		}
		found, err := s.find(ctx, unconfirmed)
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
func (s *session) committed(entries []source.Message, batch *plan.Plan, trace *flight.BatchTrace) {
	o := s.owner
	now := o.Now()
	o.calm()
	o.setPosition(s.position, s.last)
	o.Metrics.Batch.Observe(float64(len(entries)))
	countResults(o.Metrics, batch.Results)
	observeCommitTimes(o.Metrics, entries, now)
	s.cache.ApplyCommitted(changeOf(batch), now.UnixMilli())
	s.refusals.Add(batch.Refusals, entries[len(entries)-1].TimeMs())
	o.gauges.Refusals.Set(float64(s.refusals.Size()))
	trace.Publishing(entries, func(i int) flight.TraceResult { return traceResultOf(&batch.Results[i]) })
	done := flight.Commit{
		Messages: entries, Events: batch.Events, Causes: batch.Causes,
		Traceparents: trace.Traceparents(entries, batch.Causes), Committed: now,
	}
	if !bugFanoutBeforeCommit {
		done.Unpublished = s.publisher.Events(batch.Events, publish.Origin{Committed: now, Traceparents: done.Traceparents})
	}
	if !bugAckBeforeCommit {
		s.publisher.Results(answersOf(batch, entries), trace.Header())
	}
	done.Published = o.Now()
	o.Metrics.PublishTime.Observe(done.Published.Sub(now).Seconds())
	o.Recorder.RecordCommit(&done)
	for _, letter := range batch.Letters {
		o.Log.Error("a message was put aside as a dead letter", "sequence", letter.GetSequence(), "reason", letter.GetReason())
	}
}

// loadFor brings the conversations of a batch into memory.
func (s *session) loadFor(ctx context.Context, entries []source.Message) error {
	wanted := make(map[string]struct{}, min(len(entries), 64))
	for i := range entries {
		// Ids that no conversation can have are refused without a state, and the store would refuse to look for them.
		if key := source.KeyOf(entries[i].Command); key.Committable() {
			wanted[key.Conversation] = struct{}{}
		}
	}
	return s.load(ctx, s.cache.Missing(nil, wanted))
}

// load brings conversations into memory.
func (s *session) load(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	return ask(ctx, s.owner, "states", ids, func(ctx context.Context, ids []string) error {
		answer, err := s.owner.History.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: ids})
		if err == nil {
			s.cache.AddLoaded(ids, answer.GetConversations(), s.owner.Now().UnixMilli())
		}
		return err
	})
}

// find gives the first outcomes of those commands that were committed.
func (s *session) find(ctx context.Context, keys []source.CommandKey) ([]*conversationv1.Event, error) {
	var found []*conversationv1.Event
	err := ask(ctx, s.owner, "first outcomes", keys, func(ctx context.Context, keys []source.CommandKey) error {
		request := &historyv1.FindCommandsRequest{Commands: make([]*historyv1.CommandKey, len(keys))}
		for i, key := range keys {
			request.Commands[i] = key.Proto()
		}
		answer, err := s.owner.History.FindCommands(ctx, request)
		if err == nil {
			found = append(found, answer.GetEvents()...)
		}
		return err
	})
	return found, err
}

// republish tells once more what came of commands that were committed before the takeover: their owner may have died
// between the commit and the telling. Refusals that are remembered are told, too.
func (s *session) republish(ctx context.Context, entries []source.Message) error {
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
	events, err := s.find(ctx, keys)
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
		} else if known := s.refusals.Find(source.KeyOf(command), command.GetAttempt(), entries[i].TimeMs()); known != nil && !known.Stale(entries[i].TimeMs()) {
			v.Refusal = known.Err
		} else {
			continue
		}
		answers = append(answers, publish.Answer{Inbox: command.GetInbox(), Result: &brokerv1.Result{Sender: command.GetSender(), Outcome: v.Outcome(command), Salt: command.GetSalt()}})
	}
	slices.SortFunc(events, func(a, b *conversationv1.Event) int {
		return cmp.Or(cmp.Compare(a.GetConversationId(), b.GetConversationId()), cmp.Compare(a.GetSeq(), b.GetSeq()))
	})
	unpublished := s.publisher.Events(events, publish.Origin{})
	s.publisher.Results(answers, nil)
	s.owner.Metrics.Republished.Add(float64(len(events)))
	s.owner.Recorder.RecordRepublished(events, s.owner.Now(), unpublished)
	return nil
}
