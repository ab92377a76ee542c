package dedupe

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/source"
)

// The facts of a new batch are empty, and can be written at once.
func TestNewFactsAreEmpty(t *testing.T) {
	known := NewFacts()
	require.Empty(t, known.Firsts)
	require.Empty(t, known.Poisoned)
	require.Empty(t, known.Asked)
	key := source.CommandKey{Command: "c"}
	known.Firsts[key], known.Poisoned[1], known.Asked[key] = &conversationv1.Event{}, "why", struct{}{}
}

// A duplicate is learned under the key of the event that the batch wanted to add.
func TestLearn(t *testing.T) {
	event := func(id string) *conversationv1.Event {
		return &conversationv1.Event{ConversationId: "g", Sender: "ann", CommandId: id}
	}
	events := []*conversationv1.Event{event("1"), event("2")}
	first := &conversationv1.Event{Seq: 7}
	known := NewFacts()
	require.NoError(t, known.Learn(events, []*historyv1.Duplicate{{Index: 1, First: first}}))
	require.Equal(t, map[source.CommandKey]*conversationv1.Event{source.KeyOfEvent(events[1]): first}, known.Firsts)
	require.NoError(t, known.Learn(events, []*historyv1.Duplicate{{Index: 0, First: first}}))
	require.Len(t, known.Firsts, 2, "facts grow")

	// An answer that makes no sense is an error; nothing is learned from it.
	known = NewFacts()
	require.ErrorContains(t, known.Learn(events, []*historyv1.Duplicate{{Index: 2, First: first}}), "duplicate 2 of 2 events")
	require.ErrorContains(t, known.Learn(events, []*historyv1.Duplicate{{Index: 3, First: first}}), "duplicate 3 of 2 events")
	require.Error(t, known.Learn(events, []*historyv1.Duplicate{{Index: 0}}), "without the first event")
	require.Empty(t, known.Firsts)
}
