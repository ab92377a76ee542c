package chain_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

const conversationID = "g0123456789abcdefghijklmnop"

// newer is a body with an action and a field that no build knows: Body.action 998, and the additional field 1500.
var newer = []byte{0xb2, 0x3e, 0x03, 0x0a, 0x01, 'x', 0xe0, 0x5d, 0x01}

func body(tb testing.TB, b *conversationv1.Body) []byte {
	tb.Helper()
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(b)
	require.NoError(tb, err)
	return encoded
}

func message(tb testing.TB, m *conversationv1.Message) []byte {
	tb.Helper()
	return body(tb, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: m}})
}

// log is a conversation's log as an installation returns it.
type log struct{ events []*conversationv1.Event }

func (l *log) add(kind conversationv1.EventKind, encoded []byte, extra *conversationv1.Targets, saltSize int) *conversationv1.Event {
	seq := uint64(len(l.events) + 1)
	prev := chain.Zero
	if seq > 1 {
		prev = l.events[seq-2].GetHash()
	}
	event := &conversationv1.Event{
		ConversationId: conversationID, Seq: seq, TimeMs: 1790000000000 + int64(seq), Sender: "alice",
		CommandId: "0192f3c0-0000-7000-8000-00000000000" + string(rune('0'+seq)), Kind: kind,
		Body: encoded, Salt: bytes.Repeat([]byte{byte(seq)}, saltSize), PrevHash: prev,
	}
	if extra != nil {
		event.HeaderExtra, _ = proto.MarshalOptions{Deterministic: true}.Marshal(extra)
	}
	chain.Seal(event)
	l.events = append(l.events, event)
	return event
}

// intact makes a log with an event of every form.
func intact(tb testing.TB) *log {
	tb.Helper()
	l := &log{}
	l.add(1, body(tb, &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: "Zürich 🌉", Members: []string{"bob", "carol"},
	}}}), &conversationv1.Targets{Seqs: []uint64{2}, Users: []string{"bob", "carol"}}, 16)
	l.add(2, message(tb, &conversationv1.Message{Text: "hello\n<&>\u2028", Metadata: map[string]string{"b": "2", "a": "", "B": "π", "a.b": "x"}}), nil, 16)
	l.add(7, body(tb, &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: "bye"}}}),
		&conversationv1.Targets{Seqs: []uint64{2}}, 16)
	l.add(2, append(message(tb, &conversationv1.Message{Text: "with a newer field"}), 0xe0, 0x5d, 0x01), nil, 32)
	l.add(998, newer, nil, 16)
	l.add(5, body(tb, &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}), nil, 16)
	return l
}

func verify(events []*conversationv1.Event) (contents []chain.Content, err error) {
	var v chain.Verifier
	for _, event := range events {
		content, err := v.Next(event)
		if err != nil {
			return contents, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func TestVerifierAcceptsAnIntactLog(t *testing.T) {
	events := intact(t).events
	contents, err := verify(events)
	require.NoError(t, err)
	for i, content := range contents {
		require.Equal(t, chain.Verified, content, "seq %d", i+1)
	}
	_, err = verify(events[3:])
	require.NoError(t, err, "a stretch verifies without what came before")
	_, err = chain.From(2, events[1].GetHash()).Next(events[2])
	require.NoError(t, err)
}

func TestErasedEventStillVerifiesAndShows(t *testing.T) {
	events := intact(t).events
	chain.Erase(events[1])
	contents, err := verify(events)
	require.NoError(t, err)
	require.Equal(t, chain.Erased, contents[1])
	require.Equal(t, chain.Verified, contents[2])
}

// TestAnUnknownFormatIsNotTampering: a newer part may seal events in a format that this build cannot recompute.
func TestAnUnknownFormatIsNotTampering(t *testing.T) {
	l := intact(t)
	event := l.add(2, message(t, &conversationv1.Message{Text: "of the future"}), nil, 16)
	event.Format, event.Hash, event.Commitment, event.Salt = 3, bytes.Repeat([]byte{7}, 48), []byte{1}, make([]byte, 64)
	next := l.add(2, message(t, &conversationv1.Message{Text: "after it"}), nil, 16)
	next.Format, next.Hash = 3, []byte{9}
	contents, err := verify(l.events)
	require.NoError(t, err)
	require.Equal(t, []chain.Content{chain.NotChecked, chain.NotChecked}, contents[6:])

	next.PrevHash = chain.Zero
	_, err = verify(l.events)
	require.Error(t, err, "the next event must name it all the same")

	next.PrevHash, next.Format = event.GetHash(), 2
	chain.Seal(next)
	_, err = verify(l.events)
	require.Error(t, err, "a format never falls")
}

// TestAMissingBodyIsNotPassed: a verifier detects a server that removes bodies without erasing them (a JSON client that did
// not request the bytes gets NotChecked).
func TestAMissingBodyIsNotPassed(t *testing.T) {
	events := intact(t).events
	events[1].Body = nil
	_, err := verify(events)
	require.Error(t, err)

	headers := chain.Verifier{HeadersOnly: true}
	for i, event := range events {
		content, err := headers.Next(event)
		require.NoError(t, err)
		if i == 1 {
			require.Equal(t, chain.NotChecked, content)
		}
	}
}

// changes returns all ways to change one event.
func changes() map[string]func(*conversationv1.Event) {
	reseal := func(change func(*conversationv1.Event)) func(*conversationv1.Event) {
		return func(e *conversationv1.Event) {
			change(e)
			sum := chain.Hash(e)
			e.Hash = sum[:]
		}
	}
	return map[string]func(*conversationv1.Event){
		"conversation":     func(e *conversationv1.Event) { e.ConversationId = "g0123456789abcdefghijklmnoq" },
		"seq":              func(e *conversationv1.Event) { e.Seq++ },
		"time":             func(e *conversationv1.Event) { e.TimeMs++ },
		"sender":           func(e *conversationv1.Event) { e.Sender = "mallory" },
		"command":          func(e *conversationv1.Event) { e.CommandId = "0192f3c0-0000-7000-8000-ffffffffffff" },
		"kind":             func(e *conversationv1.Event) { e.Kind = conversationv1.EventKind_EVENT_KIND_RENAMED },
		"body":             func(e *conversationv1.Event) { e.Body[len(e.GetBody())-1] ^= 1 },
		"body emptied":     func(e *conversationv1.Event) { e.Body = []byte{} },
		"body gone":        func(e *conversationv1.Event) { e.Body = nil },
		"salt":             func(e *conversationv1.Event) { e.Salt[0] ^= 1 },
		"salt gone":        func(e *conversationv1.Event) { e.Salt = nil },
		"salt too long":    func(e *conversationv1.Event) { e.Salt = make([]byte, 33) },
		"commitment":       func(e *conversationv1.Event) { e.Commitment[0] ^= 1 },
		"commitment gone":  func(e *conversationv1.Event) { e.Commitment = nil },
		"all content gone": func(e *conversationv1.Event) { e.Body, e.Salt, e.Commitment = nil, nil, nil },
		"header_extra":     func(e *conversationv1.Event) { e.HeaderExtra[len(e.GetHeaderExtra())-1] ^= 1 },
		"extra gone":       func(e *conversationv1.Event) { e.HeaderExtra = nil },
		"prev_hash":        func(e *conversationv1.Event) { e.PrevHash = bytes.Repeat([]byte{9}, chain.Size) },
		"hash":             func(e *conversationv1.Event) { e.Hash[0] ^= 1 },
		"no format":        func(e *conversationv1.Event) { e.Format = 0 },
		"format of before": func(e *conversationv1.Event) { e.Format = 1 },
		// The event is consistent in itself, but does not follow the previous event.
		"forged":                     reseal(func(e *conversationv1.Event) { e.PrevHash = chain.Zero }),
		"resealed over another body": reseal(func(e *conversationv1.Event) { e.Body[len(e.GetBody())-1] ^= 1 }),
	}
}

func TestVerifierNamesEveryBreak(t *testing.T) {
	const at = 2 // index; seq 3, which has targets
	for name, change := range changes() {
		t.Run(name, func(t *testing.T) {
			events := intact(t).events
			change(events[at])
			_, err := verify(events)
			var broken *chain.Broken
			require.ErrorAs(t, err, &broken)
			require.Equal(t, ids.Seq(events[at].GetSeq()), broken.Seq)
		})
	}
	for name, reorder := range map[string]func([]*conversationv1.Event) []*conversationv1.Event{
		"dropped":  func(e []*conversationv1.Event) []*conversationv1.Event { return append(e[:at:at], e[at+1:]...) },
		"swapped":  func(e []*conversationv1.Event) []*conversationv1.Event { e[at], e[at+1] = e[at+1], e[at]; return e },
		"repeated": func(e []*conversationv1.Event) []*conversationv1.Event { return append(e[:at+1:at+1], e[at:]...) },
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verify(reorder(intact(t).events))
			var broken *chain.Broken
			require.ErrorAs(t, err, &broken)
		})
	}
	// A content event without body and salt counts as erased. A structure event cannot be erased.
	for kind, structure := range map[conversationv1.EventKind]bool{
		conversationv1.EventKind_EVENT_KIND_CREATED: false, conversationv1.EventKind_EVENT_KIND_MESSAGE: false,
		conversationv1.EventKind_EVENT_KIND_MEMBERS_ADDED: true, conversationv1.EventKind_EVENT_KIND_MEMBER_REMOVED: true,
		conversationv1.EventKind_EVENT_KIND_MEMBER_LEFT: true, conversationv1.EventKind_EVENT_KIND_DELETED: true,
		conversationv1.EventKind_EVENT_KIND_ERASED: true, 999: false,
	} {
		t.Run("without content: "+kind.String(), func(t *testing.T) {
			l := &log{}
			event := l.add(kind, message(t, &conversationv1.Message{Text: "x"}), nil, 16)
			event.Body, event.Salt = nil, nil
			for _, v := range []chain.Verifier{{}, {HeadersOnly: true}} {
				content, err := v.Next(event)
				if structure {
					require.ErrorContains(t, err, "cannot be erased")
					continue
				}
				require.NoError(t, err)
				require.Equal(t, chain.Erased, content)
			}
		})
	}
	t.Run("first event with a predecessor", func(t *testing.T) {
		first := intact(t).events[0]
		first.PrevHash = bytes.Repeat([]byte{1}, chain.Size)
		chain.Seal(first)
		_, err := verify([]*conversationv1.Event{first})
		require.Error(t, err)
	})
}

func TestSkipTakesTheNextOnTrust(t *testing.T) {
	events := intact(t).events
	var v chain.Verifier
	_, err := v.Next(events[0])
	require.NoError(t, err)
	v.Skip()
	_, err = v.Next(events[3])
	require.NoError(t, err)
	require.Equal(t, ids.Seq(4), v.Seq())
}

// TestPartsAreHashedWithTheirLength: moving text from one field to the next must change the hash.
func TestPartsAreHashedWithTheirLength(t *testing.T) {
	a, b := chain.Commitment([]byte("ab"), []byte("c")), chain.Commitment([]byte("a"), []byte("bc"))
	require.NotEqual(t, hex.EncodeToString(a[:]), hex.EncodeToString(b[:]))
	one := &conversationv1.Event{Sender: "ab", CommandId: "c"}
	two := &conversationv1.Event{Sender: "a", CommandId: "bc"}
	require.NotEqual(t, chain.Hash(one), chain.Hash(two))
}

func BenchmarkSeal(b *testing.B) {
	event := intact(b).events[1]
	b.ReportAllocs()
	for b.Loop() {
		chain.Seal(event)
	}
}
