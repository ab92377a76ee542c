package stream

import clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

// Search finds the last event that the client and the server have in common. It compares the server's events with those that the
// client remembers:
//
//	        event is the same
//	newest ─────────────────────▶ Same
//	  │ another, or none
//	  ▼                remembered events at or below the server's head, newest first in steps that double, then halving
//	older  ──────────▶ Forked
//
// The caller reads the event Seq and passes it to Compare until the result is not More. The stream must not move meanwhile.
type Search struct {
	stream *Stream
	// looked is the index of the mark to compare next, or the constant newest.
	looked int
	// Marks below low are common to both logs, marks from high on are not. step is the distance of the next comparison.
	low, high, step int
	// hash is the server's hash of the last common mark.
	hash []byte
}

// newest is used instead of an index while the newest event is compared, because it may have no mark.
const newest = -1

// Verdict is the result of a search.
type Verdict int

const (
	// More means that another event must be compared.
	More Verdict = iota
	// Same means that the server has the same events as the client.
	Same
	// Forked means that the server's log went back, or is another log.
	Forked
)

// Common is the last event that the client and the server have in common.
type Common struct {
	Seq uint64
	// Hash is nil if it is not known.
	Hash []byte
}

// Search begins a search.
func (s *Stream) Search() *Search { return &Search{stream: s, looked: newest} }

// Seq returns the event that the caller must read and compare next.
func (s *Search) Seq() uint64 {
	if s.looked == newest {
		return s.stream.last
	}
	return s.stream.trail.marks[s.looked].seq
}

// Compare takes the server's page from Seq on. committed is the newest seq that the client knows from the outcome of a
// command. If the verdict is Forked, Compare also returns the last common event.
func (s *Search) Compare(page *clientv1.Page, committed uint64) (Verdict, Common) {
	if s.looked == newest {
		return s.compareNewest(page, committed)
	}
	at := s.stream.trail.marks[s.looked]
	if theirs := eventAt(page, at.seq); theirs != nil && at.is(theirs.GetHash()) {
		s.low, s.hash = s.looked+1, theirs.GetHash()
	} else {
		s.high = s.looked
	}
	return s.next()
}

func (s *Search) compareNewest(page *clientv1.Page, committed uint64) (Verdict, Common) {
	trail, last := &s.stream.trail, s.stream.last
	had := trail.at(last)
	theirs := eventAt(page, last)
	hidden := Covered(page.GetHidden(), last, last+1)
	// If the client does not know its own hash, the events count as the same.
	same := hidden || last == 0 || (theirs != nil && (had == nil || had.is(theirs.GetHash())))
	switch {
	case same && page.GetHead() >= max(last, committed):
		return Same, Common{}
	case same && page.GetHead() >= last:
		// The server lost only events that this client knows from outcomes of commands.
		return Forked, Common{Seq: last, Hash: theirs.GetHash()}
	}
	s.high, s.step = trail.below(min(page.GetHead(), last)), 1
	if theirs != nil && had != nil {
		s.high = min(s.high, len(trail.marks)-1)
	}
	return s.next()
}

// next chooses the next mark, or ends the search if no mark is left to compare.
func (s *Search) next() (Verdict, Common) {
	switch {
	case s.low < s.high:
		s.looked = (s.low + s.high) / 2
		if s.low == 0 {
			// Most forked logs lose only their last events.
			s.looked = max(s.high-s.step, 0)
			s.step *= 2
		}
		return More, Common{}
	case s.low == 0:
		return Forked, Common{Seq: max(s.stream.joined, 1) - 1}
	}
	return Forked, Common{Seq: s.stream.trail.marks[s.low-1].seq, Hash: s.hash}
}

// eventAt returns the event of a page at a seq; nil if there is none.
func eventAt(page *clientv1.Page, seq uint64) *clientv1.Event {
	for _, event := range page.GetEvents() {
		if event.GetSeq() == seq {
			return event
		}
	}
	return nil
}
