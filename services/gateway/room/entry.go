package room

import (
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// entry is an event with its encodings, each made once when first needed. Guarded by the room's mu.
type entry struct {
	event *conversationv1.Event
	// joined are the users whose membership begins with the event; left is the user whose membership it ends. Both are
	// mostly empty.
	joined []string
	left   ids.User
	// committedNs is when a worker received the answer to the commit, Unix ns; 0 if it is not known.
	committedNs int64
	trace       *flight.EventTrace // nil when it is not sampled
	size        int
	frames      [frame.NumCodecs][]byte // by codec, without the framing of a transport
	// pending: the event was sent at once to a user other than its sender, and no such user has acknowledged it yet.
	pending bool
}

func newEntry(event *conversationv1.Event) *entry {
	e := &entry{event: event, size: event.SizeVT()}
	e.joined, e.left = conversation.Memberships(event)
	return e
}

func newEntries(events []*conversationv1.Event) []*entry {
	entries := make([]*entry, len(events))
	for i, event := range events {
		entries[i] = newEntry(event)
	}
	return entries
}

func (e *entry) seq() ids.Seq { return ids.Seq(e.event.GetSeq()) }

// weight is the approximate memory of the entry with its encodings, in bytes.
func (e *entry) weight() int { return 4*e.size + 256 }

func (e *entry) frame(codec frame.Codec) []byte {
	if e.frames[codec] == nil {
		parent := ""
		if e.trace != nil {
			parent = e.trace.Parent
		}
		e.frames[codec] = frame.AppendEvent(make([]byte, 0, 2*e.size+128), codec, e.event, parent)
	}
	return e.frames[codec]
}

// Limits of one message with several events.
const (
	maxMessageBytes  = 48 << 10
	maxMessageEvents = 64
)

// filledPage is the last page of events that was sent to a subscription that is behind, with its encoded messages. When
// many clients reconnect at once, many are behind at the same event and need the same page.
type filledPage struct {
	first, last *entry
	messages    [wire.NumEncodings][][]byte
}

// messagesOf returns the messages of a page. Consecutive calls for the same page share the messages.
func (f *filledPage) messagesOf(encoding wire.Encoding, entries []*entry) [][]byte {
	first, last := entries[0], entries[len(entries)-1]
	if f.first != first || f.last != last {
		*f = filledPage{first: first, last: last}
	}
	if f.messages[encoding] == nil {
		messages(encoding, entries, func(message []byte) { f.messages[encoding] = append(f.messages[encoding], message) })
	}
	return f.messages[encoding]
}

// messages joins frames into messages of an encoding and hands each to queue.
func messages(encoding wire.Encoding, entries []*entry, queue func([]byte)) {
	codec := encoding.Codec()
	for len(entries) > 0 {
		n, size := 0, 0
		for n < len(entries) && n < maxMessageEvents && (n == 0 || size+len(entries[n].frame(codec)) <= maxMessageBytes) {
			size += len(entries[n].frame(codec))
			n++
		}
		queue(encoding.Message(func(dst []byte) []byte {
			for _, e := range entries[:n] {
				dst = append(dst, e.frame(codec)...)
			}
			return dst
		}))
		entries = entries[n:]
	}
}
