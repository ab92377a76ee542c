package store

import (
	"fmt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

// The tables do not contain the previous hash of an event: it is the hash of the preceding row of the log. Links reads
// ranges with one additional row. Link handles single events, which are read together with that hash.

// GapError means that rows are missing from a log: the previous hash of the event at Last+1 is unknown, so the event cannot
// be returned.
type GapError struct {
	ConversationID ids.Conversation
	// First and Last bound the seqs that are known to be missing.
	First, Last ids.Seq
}

func (e *GapError) Error() string {
	if e.First == e.Last {
		return fmt.Sprintf("event %d of conversation %s is missing in the database, though event %d is there", e.Last, e.ConversationID, e.Last+1)
	}
	return fmt.Sprintf("events %d to %d of conversation %s are missing in the database, though event %d is there", e.First, e.Last, e.ConversationID, e.Last+1)
}

// Link sets the previous hash of an event that was read alone; hash is NULL if the preceding row is missing. In that case
// Link returns a *GapError, unless the event is the first of its log.
func Link(event *conversationv1.Event, hash []byte) error {
	switch {
	case event.GetSeq() == 1:
		event.PrevHash = chain.Zero
	case len(hash) == 0:
		return &GapError{ConversationID: ids.Conversation(event.GetConversationId()), First: ids.Seq(event.GetSeq() - 1), Last: ids.Seq(event.GetSeq() - 1)}
	default:
		event.PrevHash = hash
	}
	return nil
}

// Links reads one range of a log in order and sets the previous hash of each event. It is not safe for concurrent use.
type Links struct {
	first    ids.Seq
	backward bool
	take     takeEvent

	next ids.Seq // in a rising range: the seq of the next row
	hash []byte  // in a rising range: the hash of the preceding row
	held *stored
}

// stored is an event of a falling range that waits for the preceding row of the log.
type stored struct {
	event *conversationv1.Event
	size  int
}

// NewLinks begins a range of events with seq ≥ first, rising or falling. It passes each event with the size of its stored
// body to take, until take returns false.
func NewLinks(first ids.Seq, backward bool, take takeEvent) *Links {
	l := &Links{first: first, backward: backward, take: take, next: first}
	if first > 1 {
		l.next--
	} else {
		l.hash = chain.Zero
	}
	return l
}

// From returns the lowest seq to read: the seq before the first event.
func (l *Links) From() ids.Seq { return max(l.first, 2) - 1 }

// Rows returns the number of rows to read for this number of events.
func (l *Links) Rows(events int) int { return events + 1 }

// Row accepts the next row, and returns false when no more are needed.
func (l *Links) Row(event *conversationv1.Event, size int) (bool, error) {
	if l.backward {
		return l.falling(event, size)
	}
	return l.rising(event, size)
}

func (l *Links) rising(event *conversationv1.Event, size int) (bool, error) {
	if ids.Seq(event.GetSeq()) != l.next {
		return false, &GapError{ConversationID: ids.Conversation(event.GetConversationId()), First: l.next, Last: ids.Seq(event.GetSeq() - 1)}
	}
	event.PrevHash = l.hash
	l.next, l.hash = ids.Seq(event.GetSeq()+1), event.GetHash()
	return ids.Seq(event.GetSeq()) < l.first || l.take(event, size), nil
}

func (l *Links) falling(event *conversationv1.Event, size int) (bool, error) {
	if held := l.held; held != nil {
		if event.GetSeq() != held.event.GetSeq()-1 {
			return false, &GapError{ConversationID: ids.Conversation(event.GetConversationId()), First: ids.Seq(event.GetSeq() + 1), Last: ids.Seq(held.event.GetSeq() - 1)}
		}
		l.held, held.event.PrevHash = nil, event.GetHash()
		if !l.take(held.event, held.size) {
			return false, nil
		}
	}
	switch {
	case ids.Seq(event.GetSeq()) < l.first:
		return false, nil
	case event.GetSeq() == 1:
		event.PrevHash = chain.Zero
		return l.take(event, size), nil
	}
	l.held = &stored{event, size}
	return true, nil
}

// End is called after the last row. It returns a *GapError if an event still waits for the preceding row.
func (l *Links) End() error {
	if l.held == nil {
		return nil
	}
	seq := l.held.event.GetSeq()
	return &GapError{ConversationID: ids.Conversation(l.held.event.GetConversationId()), First: l.From(), Last: ids.Seq(seq - 1)}
}
