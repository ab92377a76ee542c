package commit

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/flight"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/store"
)

// After a takeover, the outcomes of commands that were committed before are published again: events in order, first
// outcomes unmarked, and remembered refusals.
func TestRepublish(t *testing.T) {
	first := setup(t)
	silent := text(5, "nobody waits")
	silent.Inbox = ""
	lost := text(9, "accepted, and not committed")
	bad := text(8, "x")
	bad.ConversationId = "live.>"
	other := deliverytest.Command("", "bob", 7, deliverytest.Group("h"))
	batch := messages(t, 1, create, text(2, "a"), intruder(3), text(2, "a"), silent, text(2, "another body"), other)
	first.commit(batch)
	wanted, _ := first.told()

	b := first.again()
	unknown := messages(t, 8, bad, lost)
	garbage := source.Decode(10, 10e6, []byte("garbage"))
	require.NoError(t, b.Republish(t.Context(), append(append(append([]source.Message{}, batch...), unknown...), garbage)))
	results, events := b.told()
	require.Len(t, results, len(wanted))
	for i, r := range results {
		require.Equal(t, wanted[i].GetOutcome().GetSeq(), r.GetOutcome().GetSeq())
		require.Equal(t, wanted[i].GetOutcome().GetRepeated(), r.GetOutcome().GetRepeated(), "command %d", i)
		require.Equal(t, wanted[i].GetOutcome().GetError().GetCode(), r.GetOutcome().GetError().GetCode())
		require.Equal(t, wanted[i].GetSender(), r.GetSender())
		require.Equal(t, wanted[i].GetSalt(), r.GetSalt())
	}
	require.Equal(t, []conversationv1.ErrorCode{none, none, notFound, none, conflict, none}, codesOf(results))
	bySeq := map[string][]uint64{}
	for _, event := range events {
		bySeq[event.GetConversationId()] = append(bySeq[event.GetConversationId()], event.GetSeq())
	}
	require.Equal(t, map[string][]uint64{string(group): {1, 2, 3}, other.GetConversationId(): {1}}, bySeq)
	require.Equal(t, []int{6}, b.store.commands, "each command is looked up once")
	require.Equal(t, 4, b.count("republished_events_total", ""))
	require.Empty(t, b.store.appends)

	var explained deliveryv1.ExplainResponse
	b.Recorder.Explain(group, 2, &explained)
	require.NotZero(t, explained.GetRepublishedNs())
	require.Nil(t, explained.GetCommit())
}

// Events are published in their order, whatever the order of the store's answer. The events of one live message must be
// consecutive.
func TestRepublishPutsEventsInOrder(t *testing.T) {
	first := setup(t)
	batch := messages(t, 1, create, text(2, "a"), text(3, "b"))
	first.commit(batch)
	b := first.again()
	b.store.found = func(answer *historyv1.FindCommandsResponse) { slices.Reverse(answer.GetEvents()) }
	require.NoError(t, b.Republish(t.Context(), batch))
	_, events := b.told()
	require.Len(t, events, 3)
	for i, event := range events {
		require.EqualValues(t, i+1, event.GetSeq())
	}
}

// A refusal that must be stored again before it answers is not published.
func TestStaleRefusalsAreNotRepublished(t *testing.T) {
	first := setup(t)
	first.commit(messages(t, 1, create, intruder(2)))
	b := first.again()
	copies := messages(t, 2, intruder(2), intruder(2))
	copies[0].TimeNs += 4 * 60_000 * 1e6
	copies[1].TimeNs += 4*60_000*1e6 + 1e6
	require.NoError(t, b.Republish(t.Context(), copies))
	results, _ := b.told()
	require.Len(t, results, 1)

	retry := intruder(2)
	retry.Attempt = 1
	require.NoError(t, b.Republish(t.Context(), messages(t, 3, retry)))
	results, _ = b.told()
	require.Empty(t, results, "it is an answer to the earlier attempt only")
}

// Messages that cannot have been committed cause no call of the store.
func TestRepublishNothing(t *testing.T) {
	b := setup(t)
	require.NoError(t, b.Republish(t.Context(), []source.Message{source.Decode(1, 1e6, []byte("garbage"))}))
	require.NoError(t, b.Republish(t.Context(), nil))
	require.Empty(t, b.store.commands)
	require.Empty(t, b.conn.Take())
}

// The request is retried until the store answers. Stopping the work ends the retries.
func TestRepublishStops(t *testing.T) {
	b := setup(t)
	b.host.stopAfter = 2
	b.store.finding = times(100, codes.Unavailable)
	require.ErrorIs(t, b.Republish(t.Context(), messages(t, 1, create)), store.ErrStopping)
	require.Empty(t, b.conn.Take())
}

// The trace of a command ends with the seq of its event or the name of its failure.
func TestTraceResults(t *testing.T) {
	require.Equal(t, flight.TraceResult{Seq: 7}, traceResultOf(&plan.Result{Event: &conversationv1.Event{Seq: 7}}))
	require.Equal(t, flight.TraceResult{Failure: errcode.Name(notFound)}, traceResultOf(&plan.Result{Refusal: &conversationv1.Error{Code: notFound}}))
	require.Equal(t, flight.TraceResult{Failure: "dead-lettered"}, traceResultOf(&plan.Result{DeadReason: "bad"}))
}

// Every result is counted once, under its outcome.
func TestCountResults(t *testing.T) {
	b := setup(t)
	event := &conversationv1.Event{}
	countResults(b.Metrics, []plan.Result{
		{Event: event},
		{Event: event},
		{Event: event},
		{Event: event, Repeated: true},
		{Event: event, Repeated: true},
		{Late: true},
		{Refusal: &conversationv1.Error{Code: notFound}, Unremembered: true},
		{DeadReason: "x", Unremembered: true},
		{Refusal: &conversationv1.Error{Code: notFound}},
		{Refusal: plan.ErrDeadLettered, Remembered: true},
		{DeadReason: "x"},
		{DeadReason: "x"},
	})
	for outcome, n := range map[string]int{"committed": 3, "repeated": 2, "late": 1, "not_found": 1, "dead_lettered": 3} {
		require.Equal(t, n, b.count("commands_total", outcome), outcome)
	}
	require.Equal(t, 2, b.count("refusals_unremembered_total", ""))
}
