// Package stream follows the log of one conversation: how far the client has it, which events arrived too early, and where the
// server's log differs from the client's. It does no I/O, takes no lock and calls no other part.
package stream

import (
	"bytes"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// maxHeld is the number of events beyond a gap that are kept while the gap is filled. Events beyond them are read from
// history.
const maxHeld = 256

// Stream is the position of the client in the log of one conversation:
//
//	1 … Last     taken: handed to the program, or on its way there
//	gap          missing: to be read from history
//	held         received too early, without a hole among themselves
//	… Head       known to exist
//
// Last moves only to the next event, if it verifies, or over a stretch that the user may not see. Rewind moves it back.
type Stream struct {
	id       string
	verifier chain.Verifier
	last     uint64
	head     uint64
	held     []Arrival
	trail    trail
	joined   uint64
	branch   int
}

// Arrival is an event as it was received.
type Arrival struct {
	Event *clientv1.Event
	// Origin is nil for an event without a trace, and for an event that was read from history, because pages contain no
	// traces.
	Origin *tracing.Origin
}

// New begins a conversation after a seq.
func New(id string, after uint64) *Stream { return &Stream{id: id, last: after} }

// Resume continues a conversation after the event seq. hash is nil if it is not known.
func Resume(id string, seq uint64, hash []byte) *Stream {
	s := New(id, seq)
	if len(hash) == chain.Size {
		s.verifier = *chain.From(ids.Seq(seq), hash)
		s.trail.add(seq, hash)
	}
	return s
}

// ID is the id of the conversation.
func (s *Stream) ID() string { return s.id }

// Last is the newest seq that was taken.
func (s *Stream) Last() uint64 { return s.last }

// Head is the newest seq that is known to exist, as far as it matters for reading.
func (s *Stream) Head() uint64 { return s.head }

// Behind returns true if events up to Head are missing.
func (s *Stream) Behind() bool { return s.head > s.last }

// Branch counts how often the log went back.
func (s *Stream) Branch() int { return s.branch }

// LastHash is the beginning of the hash of the event Last; nil if the hash is not known.
func (s *Stream) LastHash() []byte {
	if m := s.trail.at(s.last); m != nil {
		return bytes.Clone(m.hash[:])
	}
	return nil
}

// SetJoined records the first seq that the user may see, unless it is already known.
func (s *Stream) SetJoined(seq uint64) {
	if s.joined == 0 {
		s.joined = seq
	}
}

// Announce records that the log extends at least to head.
func (s *Stream) Announce(head uint64) { s.head = max(s.head, head) }

// GiveUp stops expecting the missing events, until a new head is announced.
func (s *Stream) GiveUp() { s.head, s.held = s.last, nil }

// Contradicts returns true if the client had a different event at the event's seq.
func (s *Stream) Contradicts(event *clientv1.Event) bool {
	m := s.trail.at(event.GetSeq())
	return m != nil && !m.is(event.GetHash())
}

// Take moves to the event after Last, if event is the next one and verifies. The error is a *chain.Broken.
func (s *Stream) Take(check *Checker, event *clientv1.Event) (chain.Content, error) {
	switch {
	case event.GetSeq() != s.last+1:
		return 0, &chain.Broken{ConversationID: ids.Conversation(s.id), Seq: ids.Seq(event.GetSeq()), Reason: "the log has a hole before it"}
	case event.GetConversationId() != s.id:
		return 0, &chain.Broken{ConversationID: ids.Conversation(s.id), Seq: ids.Seq(event.GetSeq()), Reason: "it belongs to another conversation"}
	}
	content, err := check.Check(&s.verifier, event)
	if err != nil {
		return content, err
	}
	if s.trail.empty() && event.GetSeq() > 1 {
		s.trail.add(event.GetSeq()-1, event.GetPrevHash())
	}
	s.trail.add(event.GetSeq(), event.GetHash())
	s.last = event.GetSeq()
	return content, nil
}

// Skip moves over a stretch that the user may not see, up to a seq above Last. It returns the skipped stretch.
func (s *Stream) Skip(to uint64) *clientv1.Hidden {
	hidden := &clientv1.Hidden{ConversationId: s.id, First: s.last + 1, Last: to}
	s.last = to
	s.verifier.Skip()
	return hidden
}

// Hold keeps an event that arrived too early, if there is room and it continues the held events.
func (s *Stream) Hold(came Arrival) {
	n := len(s.held)
	if n < maxHeld && (n == 0 || s.held[n-1].Event.GetSeq()+1 == came.Event.GetSeq()) {
		s.held = append(s.held, came)
	}
}

// NextHeld removes and returns the held event after Last. It returns false if that event is not held.
func (s *Stream) NextHeld() (Arrival, bool) {
	s.dropHeldUpTo(s.last)
	if len(s.held) == 0 || s.held[0].Event.GetSeq() != s.last+1 {
		return Arrival{}, false
	}
	next := s.held[0]
	s.held = s.held[1:]
	return next, true
}

// DropHeld drops the held events; they will be read from history.
func (s *Stream) DropHeld() { s.held = nil }

// AsRead returns an event of a page as an Arrival. If the event is also held, it returns the held copy, which has its
// trace. Held events before it are dropped.
func (s *Stream) AsRead(event *clientv1.Event) Arrival {
	s.dropHeldUpTo(event.GetSeq() - 1)
	if len(s.held) > 0 && s.held[0].Event.GetSeq() == event.GetSeq() {
		return Arrival{Event: event, Origin: s.held[0].Origin}
	}
	return Arrival{Event: event}
}

func (s *Stream) dropHeldUpTo(seq uint64) {
	for len(s.held) > 0 && s.held[0].Event.GetSeq() <= seq {
		s.held = s.held[1:]
	}
	if len(s.held) == 0 {
		s.held = nil
	}
}

// Merge iterates over a page in order. It calls take for each event after Last; take must move over the event. It calls
// skip with the end of each hidden stretch that begins there; skip must move over the stretch. It stops at the first
// error, and returns the seq where it stopped.
func (s *Stream) Merge(page *clientv1.Page, take func(Arrival) error, skip func(to uint64)) (seq uint64, err error) {
	events, hidden := page.GetEvents(), page.GetHidden()
	for {
		switch {
		case len(hidden) > 0 && hidden[0].GetLast() <= s.last:
			hidden = hidden[1:]
		case len(hidden) > 0 && hidden[0].GetFirst() <= s.last+1:
			skip(hidden[0].GetLast())
		case len(events) == 0:
			return s.last, nil
		case events[0].GetSeq() <= s.last:
			events = events[1:]
		default:
			if err := take(s.AsRead(events[0])); err != nil {
				return events[0].GetSeq(), err
			}
			events = events[1:]
		}
	}
}

// Rewind moves back to the event to, after which the server has undone all events. hash is nil if it is not known.
func (s *Stream) Rewind(to uint64, hash []byte) {
	s.branch++
	s.last, s.head, s.held = to, to, nil
	s.verifier = chain.Verifier{}
	if len(hash) == chain.Size {
		s.verifier = *chain.From(ids.Seq(to), hash)
	}
	s.trail.cut(to)
}
