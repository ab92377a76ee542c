package client

import (
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Event is an event with the result of the client's check of its content.
type Event struct {
	*clientv1.Event
	// Content is chain.Verified if the body is the committed one, and chain.Erased if the content was erased from the
	// log. It is chain.NotChecked if the event's format is newer than this client, or if Config.SkipVerify is set.
	Content chain.Content
}

// Page is a stretch of a log that the program has read.
type Page struct {
	// Events are in the requested order.
	Events []Event
	// Hidden are stretches within this page that the user may not see.
	Hidden []*conversationv1.Range
	// Head is the newest seq that the user may see.
	Head uint64
	// More means that more events follow in this direction: continue after (or before) the last seq of Events or Hidden.
	More bool
}

// checkPage verifies a page that the program requested.
func checkPage(checker *stream.Checker, read *clientv1.Read, page *clientv1.Page) (*Page, error) {
	checked := &Page{
		Events: make([]Event, len(page.GetEvents())), Hidden: page.GetHidden(), Head: page.GetHead(), More: page.GetMore(),
	}
	var v chain.Verifier
	// A page that was not requested after a seq may begin at any seq that the server chooses.
	last, anywhere := read.GetAfter(), read.GetBackward()
	for i, event := range page.GetEvents() {
		place := i
		if read.GetBackward() {
			place = len(checked.Events) - 1 - i
			event = page.GetEvents()[place]
		}
		if checker.Verifies() {
			if reason := misplaced(read.GetConversationId(), event, last, anywhere, page.GetHidden()); reason != "" {
				return nil, &chain.Broken{ConversationID: ids.Conversation(read.GetConversationId()), Seq: ids.Seq(event.GetSeq()), Reason: reason}
			}
		}
		if event.GetSeq() != last+1 {
			v.Skip()
		}
		content, err := checker.Check(&v, event)
		if err != nil {
			return nil, err
		}
		checked.Events[place] = Event{Event: event, Content: content}
		last, anywhere = event.GetSeq(), false
	}
	return checked, nil
}

// misplaced returns why an event must not follow last in a page; empty if it may.
func misplaced(conversationID string, event *clientv1.Event, last uint64, anywhere bool, hidden []*conversationv1.Range) string {
	switch {
	case event.GetConversationId() != conversationID:
		return "it belongs to another conversation"
	case event.GetSeq() != last+1 && !anywhere && !stream.Covered(hidden, last+1, event.GetSeq()):
		return "the log has a hole before it"
	}
	return ""
}
