package commit

import (
	"time"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/metrics"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/publish"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// countResults counts the results of a committed batch.
func countResults(m *metrics.Metrics, results []plan.Result) {
	var committed, repeated, dead, late, unremembered int
	for i := range results {
		switch v := &results[i]; {
		case v.Repeated:
			repeated++
		case v.Event != nil:
			committed++
		case v.Late:
			late++
		case v.Unremembered:
			unremembered++
		case v.Refusal != nil:
			if c := m.Refused[v.Refusal.GetCode()]; c != nil {
				c.Inc()
			} else {
				dead++ // an earlier copy became a dead letter
			}
		default:
			dead++
		}
	}
	m.Committed.Add(float64(committed))
	m.Repeated.Add(float64(repeated))
	m.DeadLettered.Add(float64(dead))
	m.Late.Add(float64(late))
	m.Unremembered.Add(float64(unremembered))
}

// observeCommitTimes observes how long each command of a batch took from the stream to its commit. The broker's clock may
// be ahead of this worker's.
func observeCommitTimes(m *metrics.Metrics, entries []source.Message, committed time.Time) {
	now := committed.UnixNano()
	for i := range entries {
		m.CommitTime.Observe(float64(max(now-entries[i].TimeNs, 0)) / 1e9)
	}
}

// answersOf returns the results of a batch for the gateways that wait for them.
func answersOf(p *plan.Plan, entries []source.Message) []publish.Answer {
	answers := make([]publish.Answer, 0, len(entries))
	for i := range entries {
		if command := entries[i].Command; command.GetInbox() != "" {
			answers = append(answers, publish.Answer{Inbox: command.GetInbox(), Result: &brokerv1.Result{Sender: command.GetSender(), Outcome: p.Results[i].Outcome(command), Salt: command.GetSalt()}})
		}
	}
	return answers
}

// ChangeOf returns the changes in memory after the plan is committed.
func ChangeOf(p *plan.Plan) cache.Change {
	return cache.Change{States: p.States, Facts: p.Facts, Events: p.Events, Effects: p.Effects}
}

// traceResultOf returns the result of a command for its trace.
func traceResultOf(v *plan.Result) flight.TraceResult {
	switch {
	case v.Event != nil:
		return flight.TraceResult{Seq: ids.Seq(v.Event.GetSeq())}
	case v.Refusal != nil:
		return flight.TraceResult{Failure: errcode.Name(v.Refusal.GetCode())}
	default:
		return flight.TraceResult{Failure: "dead-lettered"}
	}
}
