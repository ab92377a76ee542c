// Package logtest builds logs of conversations for tests: chained events, and the pages that a server would return.
package logtest

import (
	"encoding/binary"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// body is the body of every event: the message "x".
var body = []byte{0x12, 0x3, 0xa, 0x1, 'x'}

// Log is the log of one conversation at the server.
type Log struct {
	ID     string
	events []*conversationv1.Event
	branch byte
	// hidden are the stretches that the user may not see.
	hidden []*conversationv1.Range
}

// New makes a log of n events.
func New(id string, n int) *Log {
	l := &Log{ID: id}
	l.Grow(n)
	return l
}

// Head is the newest seq.
func (l *Log) Head() uint64 { return uint64(len(l.events)) }

// Grow adds n events.
func (l *Log) Grow(n int) {
	for range n {
		salt := make([]byte, 16)
		salt[0] = l.branch
		binary.BigEndian.PutUint64(salt[8:], l.Head())
		event := &conversationv1.Event{
			ConversationId: l.ID, Seq: l.Head() + 1, Sender: "bob", CommandId: "command", Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE, Salt: salt,
			Body: body, PrevHash: make([]byte, chain.Size),
		}
		if n := len(l.events); n > 0 {
			event.PrevHash = l.events[n-1].GetHash()
		}
		chain.Seal(event)
		l.events = append(l.events, event)
	}
}

// Back undoes every event above seq. Events that are added afterwards differ from the undone ones.
func (l *Log) Back(seq uint64) {
	l.events = l.events[:seq:seq]
	l.branch++
}

// Hide makes a stretch invisible for the user.
func (l *Log) Hide(first, last uint64) {
	l.hidden = append(l.hidden, &conversationv1.Range{First: first, Last: last})
}

// Erase erases the content of the event seq.
func (l *Log) Erase(seq uint64) { chain.Erase(l.events[seq-1]) }

// Event returns the event seq in the form that a client receives.
func (l *Log) Event(seq uint64) *clientv1.Event { return frame.ToClient(l.events[seq-1]) }

// Hash is the hash of the event seq.
func (l *Log) Hash(seq uint64) []byte { return l.events[seq-1].GetHash() }

// Tampered returns the event seq with another hash.
func (l *Log) Tampered(seq uint64) *clientv1.Event {
	event := l.Event(seq)
	event.Hash = make([]byte, chain.Size)
	return event
}

// Page returns at most limit events after a seq, and the hidden stretches among them.
func (l *Log) Page(after uint64, limit int) *clientv1.Page {
	page := &clientv1.Page{Head: l.Head()}
	last := after
	for seq := after + 1; seq <= l.Head(); seq++ {
		if l.isHidden(seq) {
			last = seq
			continue
		}
		if len(page.GetEvents()) == limit {
			page.More = true
			break
		}
		page.Events, last = append(page.Events, l.Event(seq)), seq
	}
	for _, h := range l.hidden {
		if h.GetLast() > after && h.GetFirst() <= last {
			page.Hidden = append(page.Hidden, h)
		}
	}
	return page
}

func (l *Log) isHidden(seq uint64) bool {
	for _, h := range l.hidden {
		if h.GetFirst() <= seq && seq <= h.GetLast() {
			return true
		}
	}
	return false
}
