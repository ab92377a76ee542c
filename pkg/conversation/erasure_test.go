package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

const (
	aMessage = conversationv1.EventKind_EVENT_KIND_MESSAGE
	anEdit   = conversationv1.EventKind_EVENT_KIND_EDITED
)

// An erasure covers the earlier events that match everything it names.
func TestWhatAnErasureCovers(t *testing.T) {
	message := &conversationv1.Event{Seq: 5, Kind: aMessage, Sender: "ann", TimeMs: 100}
	edit := &conversationv1.Event{Seq: 6, Kind: anEdit, Sender: "ann", TimeMs: 110, HeaderExtra: encode(&conversationv1.Targets{Seqs: []uint64{5}})}
	kinds := []conversationv1.EventKind{aMessage, anEdit}
	for name, c := range map[string]struct {
		erased *historyv1.EraseEvents
		event  *conversationv1.Event
		want   bool
	}{
		"all":                      {&historyv1.EraseEvents{Kinds: kinds, Below: 6}, message, true},
		"itself and what follows":  {&historyv1.EraseEvents{Kinds: kinds, Below: 5}, message, false},
		"another kind":             {&historyv1.EraseEvents{Kinds: []conversationv1.EventKind{anEdit}, Below: 6}, message, false},
		"its seq":                  {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Seqs: []uint64{4, 5}}, message, true},
		"another seq":              {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Seqs: []uint64{4}}, message, false},
		"its sender":               {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Sender: "ann"}, message, true},
		"another sender":           {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Sender: "bob"}, message, false},
		"before a later time":      {&historyv1.EraseEvents{Kinds: kinds, Below: 9, BeforeMs: 101}, message, true},
		"before its own time":      {&historyv1.EraseEvents{Kinds: kinds, Below: 9, BeforeMs: 100}, message, false},
		"targeting: its target":    {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Seqs: []uint64{5}, Targeting: true}, edit, true},
		"targeting: its own seq":   {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Seqs: []uint64{6}, Targeting: true}, edit, false},
		"not targeting: its seq":   {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Seqs: []uint64{6}}, edit, true},
		"targeting: has no target": {&historyv1.EraseEvents{Kinds: kinds, Below: 9, Targeting: true}, message, false},
	} {
		require.Equal(t, c.want, Covers(c.erased, c.event), name)
	}
	require.True(t, HasErasure([]*historyv1.Effect{{}, erase(&historyv1.EraseEvents{})}))
	require.False(t, HasErasure([]*historyv1.Effect{setName("", NameSource{})}))
	require.True(t, IsErasure(&conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{}}}))
	require.False(t, IsErasure(&conversationv1.Body{}))
}

// Erasing the event that set the name also erases the name.
func TestErasingTheNamesEventErasesTheName(t *testing.T) {
	source := NameSource{Seq: 3, Sender: "ann", TimeMs: 100}
	for name, c := range map[string]struct {
		erase *conversationv1.Erase
		want  bool
	}{
		"its seq":             {&conversationv1.Erase{Seqs: []uint64{3}}, true},
		"another seq":         {&conversationv1.Erase{Seqs: []uint64{4}}, false},
		"its sender":          {&conversationv1.Erase{Sender: "ann"}, true},
		"another sender":      {&conversationv1.Erase{Sender: "bob"}, false},
		"before a later time": {&conversationv1.Erase{BeforeMs: 101}, true},
		"before its own time": {&conversationv1.Erase{BeforeMs: 100}, false},
	} {
		require.Equal(t, c.want, eraseKind{}.covers(c.erase, source), name)
		o := &occurrence{event: &conversationv1.Event{Seq: 9}, body: &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: c.erase}}}
		named := eraseKind{}.effects(&State{Name: "g", NameSource: source}, o)
		require.Equal(t, c.want, len(named) == 2, name)
		require.Len(t, eraseKind{}.effects(&State{NameSource: source}, o), 1, "there is no name: "+name)
	}
	require.False(t, eraseKind{}.covers(&conversationv1.Erase{}, NameSource{Seq: 3}), "the server has no user id")
}
