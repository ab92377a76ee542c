package commit

import (
	"cmp"
	"context"
	"slices"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Republish republishes the outcomes of commands that were committed before the takeover: the previous worker may have
// died between the commit and the publishing. It also publishes remembered refusals.
func (c *Committer) Republish(ctx context.Context, entries []source.Message) error {
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
			// An event has the time of the message that caused it. With another time, the outcome is a repeat.
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
