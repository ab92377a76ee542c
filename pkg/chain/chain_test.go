package chain_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

// update writes the vectors anew. They are a contract with other languages: a change that needs it breaks every client.
var update = flag.Bool("update", false, "write testdata/vectors.json anew")

// vector is one event of the test vectors, with every intermediate result in hexadecimal.
type vector struct {
	Name       string          `json:"name"`
	Event      json.RawMessage `json:"event"`
	Content    string          `json:"content,omitempty"`
	Commitment string          `json:"commitment"`
	Hash       string          `json:"hash"`
}

func bodies() map[string]*conversationv1.Body {
	return map[string]*conversationv1.Body{
		"1 created": {Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: "Zürich 🌉", Members: []string{"bob", "carol"},
		}}},
		"2 message": {Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello\n<&>\u2028", ReplyTo: 1}}},
		"3 metadata": {Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
			Metadata: map[string]string{"b": "2", "a": "", "B": "π", "a.b": "x"},
		}}},
		"4 members added":  {Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"dave"}}}},
		"5 member removed": {Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "dave"}}},
		"6 member left":    {Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}},
		"7 renamed":        {Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: "n"}}},
	}
}

var names = []string{"1 created", "2 message", "3 metadata", "4 members added", "5 member removed", "6 member left", "7 renamed"}

// log makes a chained log of one event of each kind.
func log() []*conversationv1.Event {
	var events []*conversationv1.Event
	prev := chain.Zero
	for i, name := range names {
		body := bodies()[name]
		event := &conversationv1.Event{
			ConversationId: "g0123456789abcdefghijklmnop", Seq: uint64(i + 1), TimeMs: 1790000000000 + int64(i),
			Sender: "alice", CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012d", i),
			Kind: chain.KindOf(body), Body: body, Salt: bytes.Repeat([]byte{byte(i)}, chain.SaltSize), PrevHash: prev,
		}
		hash := chain.Hash(event)
		event.Hash, prev = hash[:], hash[:]
		events = append(events, event)
	}
	return events
}

func TestVectors(t *testing.T) {
	var got []vector
	for i, event := range log() {
		commitment := chain.Commitment(event.GetSalt(), event.GetBody())
		raw, err := protojson.Marshal(event)
		require.NoError(t, err)
		var compact bytes.Buffer // protojson varies its spaces on purpose
		require.NoError(t, json.Compact(&compact, raw))
		got = append(got, vector{
			Name: names[i], Event: compact.Bytes(),
			Content:    hex.EncodeToString(chain.AppendContent(nil, event.GetBody())),
			Commitment: hex.EncodeToString(commitment[:]), Hash: hex.EncodeToString(event.GetHash()),
		})
	}
	path := filepath.Join("testdata", "vectors.json")
	if *update {
		data, err := json.MarshalIndent(got, "", "  ")
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(path, append(data, '\n'), 0o600))
	}
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	var want []vector
	require.NoError(t, json.Unmarshal(data, &want))
	require.Len(t, got, len(want))
	for i := range want {
		require.JSONEq(t, string(want[i].Event), string(got[i].Event), want[i].Name)
		require.Equal(t, want[i].Content, got[i].Content, want[i].Name)
		require.Equal(t, want[i].Commitment, got[i].Commitment, want[i].Name)
		require.Equal(t, want[i].Hash, got[i].Hash, want[i].Name)

		var event conversationv1.Event
		require.NoError(t, protojson.Unmarshal(want[i].Event, &event))
		sum := chain.Hash(&event)
		require.Equal(t, want[i].Hash, hex.EncodeToString(sum[:]), "from the file: %s", want[i].Name)
	}
}

func verify(events []*conversationv1.Event) error {
	var v chain.Verifier
	for _, event := range events {
		if err := v.Next(event); err != nil {
			return err
		}
	}
	return nil
}

func TestVerifierTakesAnIntactLog(t *testing.T) {
	events := log()
	require.NoError(t, verify(events))
	require.NoError(t, verify(events[3:]), "a stretch verifies without what came before")
	require.NoError(t, chain.From(2, events[1].GetHash()).Next(events[2]))
}

func TestErasedEventStillVerifiesAndShows(t *testing.T) {
	events := log()
	sum := chain.Commitment(events[1].GetSalt(), events[1].GetBody())
	events[1].Commitment, events[1].Body, events[1].Salt = sum[:], nil, nil
	require.NoError(t, verify(events))
	require.Equal(t, conversationv1.EventKind_EVENT_KIND_MESSAGE, events[1].GetKind())
}

// TestVerifierNamesEveryBreak changes each field of an event in turn, drops, swaps and repeats events.
func TestVerifierNamesEveryBreak(t *testing.T) {
	const at = 2 // index; seq 3
	changes := map[string]func(*conversationv1.Event){
		"conversation": func(e *conversationv1.Event) { e.ConversationId = "g0123456789abcdefghijklmnoq" },
		"seq":          func(e *conversationv1.Event) { e.Seq++ },
		"time":         func(e *conversationv1.Event) { e.TimeMs++ },
		"sender":       func(e *conversationv1.Event) { e.Sender = "mallory" },
		"command":      func(e *conversationv1.Event) { e.CommandId = "0192f3c0-0000-7000-8000-ffffffffffff" },
		"kind":         func(e *conversationv1.Event) { e.Kind = conversationv1.EventKind_EVENT_KIND_RENAMED },
		"body":         func(e *conversationv1.Event) { e.Body.GetMessage().Metadata["a"] = "!" },
		"body gone":    func(e *conversationv1.Event) { e.Body = nil },
		"salt":         func(e *conversationv1.Event) { e.Salt[0] ^= 1 },
		"prev_hash":    func(e *conversationv1.Event) { e.PrevHash = bytes.Repeat([]byte{9}, chain.Size) },
		"hash":         func(e *conversationv1.Event) { e.Hash[0] ^= 1 },
		"forged": func(e *conversationv1.Event) { // consistent in itself, but not what came after the event before
			e.PrevHash = chain.Zero
			sum := chain.Hash(e)
			e.Hash = sum[:]
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			events := log()
			events[at] = proto.Clone(events[at]).(*conversationv1.Event)
			change(events[at])
			var broken *chain.Broken
			require.ErrorAs(t, verify(events), &broken)
			require.Equal(t, events[at].GetSeq(), broken.Seq)
		})
	}
	for name, reorder := range map[string]func([]*conversationv1.Event) []*conversationv1.Event{
		"dropped":  func(e []*conversationv1.Event) []*conversationv1.Event { return append(e[:at:at], e[at+1:]...) },
		"swapped":  func(e []*conversationv1.Event) []*conversationv1.Event { e[at], e[at+1] = e[at+1], e[at]; return e },
		"repeated": func(e []*conversationv1.Event) []*conversationv1.Event { return append(e[:at+1:at+1], e[at:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			events := reorder(log())
			var broken *chain.Broken
			require.ErrorAs(t, verify(events), &broken)
			require.Contains(t, []uint64{at + 1, at + 2}, broken.Seq)
		})
	}
}

func TestSkipStartsAfresh(t *testing.T) {
	events := log()
	var v chain.Verifier
	require.NoError(t, v.Next(events[0]))
	v.Skip()
	require.NoError(t, v.Next(events[4]), "hidden events lie between")
}

func BenchmarkHash(b *testing.B) {
	event := log()[1]
	b.ReportAllocs()
	for b.Loop() {
		chain.Hash(event)
	}
}
