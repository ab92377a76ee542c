package chain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

// update rewrites the vectors. Other languages rely on the vectors, so a change that needs new vectors breaks every
// client.
var update = flag.Bool("update", false, "rewrite testdata/vectors.json")

// vector is a stretch of a log from seq 1 on, with a verifier's result. testdata/README.md describes the file.
type vector struct {
	Name string `json:"name"`
	// Events are runnel.conversation.v1.Event in protobuf JSON: bytes in base64.
	Events []json.RawMessage `json:"events"`
	// Contents are a verifier's results for the events that verify.
	Contents []string `json:"contents"`
	// BrokenSeq is the seq of the event that does not verify; 0 if all verify.
	BrokenSeq uint64 `json:"broken_seq,omitempty"`
}

// cases makes the logs of the vectors.
func cases(t *testing.T) (names []string, logs [][]*conversationv1.Event) {
	t.Helper()
	add := func(name string, events []*conversationv1.Event) {
		names, logs = append(names, name), append(logs, events)
	}
	add("intact: targets in header_extra, an unknown field, an unknown kind", intact(t).events)

	erased := intact(t).events
	chain.Erase(erased[1])
	chain.Erase(erased[2])
	add("erased: seq 2 and 3", erased)

	unknown := intact(t)
	event := unknown.add(2, message(t, &conversationv1.Message{Text: "of the future"}), nil, 16)
	event.Format, event.Hash = 3, bytes.Repeat([]byte{7}, 48)
	unknown.add(2, message(t, &conversationv1.Message{Text: "after it"}), nil, 16)
	unknown.events[7].Format, unknown.events[7].Hash = 3, bytes.Repeat([]byte{8}, 48)
	add("unknown format: seq 7 and 8", unknown.events)

	largest := &log{}
	largest.add(1, intact(t).events[0].GetBody(), nil, 16)
	metadata := map[string]string{}
	for i := range 16 {
		metadata[strings.Repeat(string(rune('a'+i)), 64)] = strings.Repeat("v", 1024)
	}
	largest.add(2, message(t, &conversationv1.Message{Text: strings.Repeat("€", 8190/3) + "!!", Metadata: metadata}), nil, 32)
	add("largest message", largest.events)

	lines := &log{}
	lines.add(1, intact(t).events[0].GetBody(), nil, 16)
	lines.add(2, message(t, &conversationv1.Message{Text: "one\r\ntwo\rthree\n"}), nil, 16)
	add("line breaks of a text, as they came", lines.events)

	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range changes() {
			if !yield(name) {
				return
			}
		}
	}) {
		events := intact(t).events
		changes()[name](events[2])
		add("tampered: "+name, events[:3])
	}
	return names, logs
}

func TestVectors(t *testing.T) {
	names, logs := cases(t)
	var got []vector
	for i, events := range logs {
		v := vector{Name: names[i], Contents: []string{}}
		for _, event := range events {
			raw, err := protojson.Marshal(event)
			require.NoError(t, err)
			var compact bytes.Buffer // protojson varies its white space on purpose
			require.NoError(t, json.Compact(&compact, raw))
			v.Events = append(v.Events, compact.Bytes())
		}
		judge(t, &v, events)
		got = append(got, v)
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
		require.Equal(t, want[i].Name, got[i].Name)
		var events []*conversationv1.Event
		for n, raw := range want[i].Events {
			require.JSONEq(t, string(raw), string(got[i].Events[n]), want[i].Name)
			event := &conversationv1.Event{}
			require.NoError(t, protojson.Unmarshal(raw, event))
			events = append(events, event)
		}
		fromFile := vector{Contents: []string{}}
		judge(t, &fromFile, events)
		require.Equal(t, want[i].Contents, fromFile.Contents, want[i].Name)
		require.Equal(t, want[i].BrokenSeq, fromFile.BrokenSeq, want[i].Name)
	}
}

// judge adds the verifier's results to a vector.
func judge(t *testing.T, v *vector, events []*conversationv1.Event) {
	t.Helper()
	contents, err := verify(events)
	for _, content := range contents {
		v.Contents = append(v.Contents, content.String())
	}
	if broken, ok := errors.AsType[*chain.Broken](err); ok {
		v.BrokenSeq = uint64(broken.Seq)
		return
	}
	require.NoError(t, err)
}
