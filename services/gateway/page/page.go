// Package page checks pages that the history service returns: whether events are missing in a page, and whether it contains the
// event that a client has. It is pure.
package page

import (
	"encoding/binary"
	"fmt"
	"slices"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

// HoleError means that an event is missing in a page of the store. Missing events are never skipped: the page is read
// again.
type HoleError struct {
	ConversationID ids.Conversation
	Seq            ids.Seq
}

func (e *HoleError) Error() string {
	return fmt.Sprintf("the history service has no event %d of conversation %s, though it has later ones", e.Seq, e.ConversationID)
}

// CheckRising checks a rising page. Its events and hidden stretches must follow the seq after without a hole. If the page
// reports that there are no more events, they must reach the head. Otherwise it returns a *HoleError.
func CheckRising(conversationID ids.Conversation, page *historyv1.ReadResponse, after ids.Seq) error {
	next, hidden := after+1, page.GetHidden()
	for _, event := range page.GetEvents() {
		next, hidden = passHidden(next, hidden)
		if ids.Seq(event.GetSeq()) != next {
			return &HoleError{conversationID, next}
		}
		next++
	}
	if next, hidden = passHidden(next, hidden); len(hidden) > 0 || (!page.GetMore() && next <= ids.Seq(page.GetHead())) {
		return &HoleError{conversationID, next}
	}
	return nil
}

// passHidden returns the seq at which a rising page continues after the hidden stretches that begin at next.
func passHidden(next ids.Seq, hidden []*conversationv1.Range) (ids.Seq, []*conversationv1.Range) {
	for len(hidden) > 0 && ids.Seq(hidden[0].GetFirst()) <= next {
		next, hidden = max(next, ids.Seq(hidden[0].GetLast()+1)), hidden[1:]
	}
	return next, hidden
}

// CheckFalling is CheckRising for a falling page. Such a page begins below the seq before; if before is 0, it begins at
// the page's head.
func CheckFalling(conversationID ids.Conversation, page *historyv1.ReadResponse, before ids.Seq) error {
	next := ids.Seq(page.GetHead())
	if before > 0 && before <= next {
		next = before - 1
	}
	hidden := page.GetHidden()
	pass := func() {
		for len(hidden) > 0 && ids.Seq(hidden[len(hidden)-1].GetLast()) >= next {
			next, hidden = min(next, ids.Seq(hidden[len(hidden)-1].GetFirst()-1)), hidden[:len(hidden)-1]
		}
	}
	for _, event := range page.GetEvents() {
		pass()
		if ids.Seq(event.GetSeq()) != next {
			return &HoleError{conversationID, next}
		}
		next--
	}
	if pass(); len(hidden) > 0 {
		return &HoleError{conversationID, next}
	}
	return nil
}

// Trim shortens a page to about limit bytes, so that an answer never fills the send queue by itself.
func Trim(page *historyv1.ReadResponse, limit int) {
	size := 0
	for i, event := range page.GetEvents() {
		if size += event.SizeVT(); size <= limit || i == 0 {
			continue
		}
		cut := page.GetEvents()[i].GetSeq()
		backward := cut < page.GetEvents()[0].GetSeq()
		page.Events, page.More = page.GetEvents()[:i], true
		page.Hidden = slices.DeleteFunc(page.GetHidden(), func(r *conversationv1.Range) bool {
			return (backward && r.GetFirst() < cut) || (!backward && r.GetLast() > cut)
		})
		return
	}
}

// Last is the last seq that a rising page covers, at most stop.
func Last(page *historyv1.ReadResponse, stop ids.Seq) ids.Seq {
	var last ids.Seq
	if n := len(page.GetEvents()); n > 0 {
		last = ids.Seq(page.GetEvents()[n-1].GetSeq())
	}
	if n := len(page.GetHidden()); n > 0 {
		last = max(last, ids.Seq(page.GetHidden()[n-1].GetLast()))
	}
	return min(last, stop)
}

// TakePosition removes the event at a client's position from the front of a rising page that was read to include it, and reports
// whether it differs from the event that the client has. An event that the client may not see is not compared.
func TakePosition(page *historyv1.ReadResponse, seq ids.Seq, hash uint64) (differs bool) {
	if events := page.GetEvents(); len(events) > 0 && ids.Seq(events[0].GetSeq()) == seq {
		page.Events = events[1:]
		differs = HashPrefix(events[0].GetHash()) != hash
	}
	if hidden := page.GetHidden(); len(hidden) > 0 && ids.Seq(hidden[0].GetFirst()) <= seq {
		rest := &conversationv1.Range{First: uint64(seq + 1), Last: hidden[0].GetLast()}
		if rest.GetFirst() <= rest.GetLast() {
			hidden = append([]*conversationv1.Range{nil, rest}, hidden[1:]...)
		}
		page.Hidden = hidden[1:]
	}
	return differs
}

// HashIn returns the hash of an event of a page; nil if the page does not contain the event.
func HashIn(page *historyv1.ReadResponse, seq ids.Seq) []byte {
	for _, event := range slices.Backward(page.GetEvents()) {
		if ids.Seq(event.GetSeq()) == seq {
			return event.GetHash()
		}
	}
	return nil
}

// HashPrefix returns the beginning of a hash as a number; 0 if the hash is not known.
func HashPrefix(hash []byte) uint64 {
	if len(hash) < chain.PrefixSize {
		return 0
	}
	return binary.BigEndian.Uint64(hash)
}
