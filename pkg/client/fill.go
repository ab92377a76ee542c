package client

import (
	"bytes"
	"slices"

	"github.com/runnelhq/runnel/pkg/chain"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Conversations that are filled at the same time, and events asked for at once.
	maxFills = 4
	fillPage = 128
	// Pages in a row that bring nothing before the client believes that there is nothing.
	maxStuck = 5
	// The protocol's limit of a page.
	maxPage = 500
)

// missing notes that events up to head are missing and gets them. The lock is held, as in all that follows.
func (c *Client) missing(conv *stream, head uint64) {
	if !conv.filling && !conv.queued && !conv.broken {
		c.stats.GapsSeen++
	}
	c.fill(conv, head)
}

// fill gets the events after last up to head by reading, when it is the conversation's turn and the callbacks have room.
func (c *Client) fill(conv *stream, head uint64) {
	conv.head = max(conv.head, head)
	if conv.filling || conv.queued || conv.broken || conv.gone {
		return
	}
	conv.queued = true
	c.behind = append(c.behind, conv)
	c.pump()
}

// pump begins fills that were waiting.
func (c *Client) pump() {
	for len(c.behind) > 0 && c.fills < maxFills && c.events <= c.cfg.MaxEvents/2 {
		conv := c.behind[0]
		if c.behind = c.behind[1:]; len(c.behind) == 0 {
			c.behind = nil
		}
		if conv.queued = false; conv.gone || conv.broken {
			continue
		}
		c.ask(c.pageAfter(conv))
	}
}

// pageAfter is the request for the page after last.
func (c *Client) pageAfter(conv *stream) *request {
	conv.filling = true
	c.fills++
	read := &clientv1.Read{ConversationId: conv.id, Limit: fillPage}
	return &request{
		frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: read}},
		// Pushed events may close the gap while the request waits.
		aim: func() { read.After = conv.last },
		done: func(answer *clientv1.ServerFrame, err error) {
			conv.filling = false
			c.fills--
			if page := answer.GetPage(); err == nil && page != nil {
				c.filled(conv, page)
			} else if !conv.gone && c.state != Closed {
				c.cfg.Log.Warn("could not read what is missing of a conversation", "conversation_id", conv.id, "error", err)
				c.giveUp(conv)
			}
			if c.state != Closed {
				c.pump()
			}
		},
	}
}

// filled takes a page.
func (c *Client) filled(conv *stream, page *clientv1.Page) {
	if conv.gone || conv.broken {
		return
	}
	c.stats.PagesRead++
	before := conv.last
	seq, err := c.merge(conv, page)
	c.proceed(conv, seq, err, readEvent)
	switch {
	case err != nil || conv.gone || conv.broken || conv.filling || conv.queued || conv.last >= conv.head:
	case conv.last > before:
		conv.stuck = 0
		c.fill(conv, conv.head)
	case conv.stuck < maxStuck:
		// What was announced must be there, so it comes a little later; unless the user may not see it any more.
		wait := c.cfg.Backoff.wait(conv.stuck)
		conv.stuck++
		c.askAfter(c.pageAfter(conv), wait)
	default:
		c.giveUp(conv)
	}
}

// merge takes the events and hidden stretches of a page in order, up to the first event that cannot be taken.
func (c *Client) merge(conv *stream, page *clientv1.Page) (seq uint64, err error) {
	events, hidden := page.GetEvents(), page.GetHidden()
	for {
		switch {
		case len(hidden) > 0 && hidden[0].GetLast() <= conv.last:
			hidden = hidden[1:]
		case len(hidden) > 0 && hidden[0].GetFirst() <= conv.last+1:
			c.skip(conv, hidden[0].GetLast())
		case len(events) == 0:
			return conv.last, nil
		case events[0].GetSeq() <= conv.last:
			events = events[1:]
		default:
			if err := c.take(conv, conv.asRead(events[0])); err != nil {
				return events[0].GetSeq(), err
			}
			events = events[1:]
		}
	}
}

// asRead is an event of a page. If it is held as well, the held copy knows its trace; those before it are of no more use.
func (conv *stream) asRead(event *conversationv1.Event) arrival {
	for len(conv.held) > 0 && conv.held[0].event.GetSeq() < event.GetSeq() {
		conv.held = conv.held[1:]
	}
	if len(conv.held) > 0 && conv.held[0].event.GetSeq() == event.GetSeq() {
		return arrival{event: event, origin: conv.held[0].origin}
	}
	return arrival{event: event}
}

// giveUp stops filling until there is a new reason to.
func (c *Client) giveUp(conv *stream) {
	conv.head, conv.held, conv.stuck = conv.last, nil, 0
	delete(c.catchingUp, conv)
	c.leaveIf(conv, true)
}

// verify checks an event. One of a kind that is newer than this client cannot be recomputed, but its place in the chain can be
// checked.
func verify(v *chain.Verifier, event *conversationv1.Event) error {
	if event.GetBody() == nil || event.GetBody().GetAction() != nil {
		return v.Next(event)
	}
	var reason string
	switch {
	case v.Hash() != nil && event.GetSeq() != v.Seq()+1:
		reason = "an event was dropped, repeated or moved before it"
	case v.Hash() != nil && !bytes.Equal(event.GetPrevHash(), v.Hash()):
		reason = "its prev_hash is not the hash of the event before it"
	case len(event.GetHash()) != chain.Size:
		reason = "it has no hash"
	default:
		*v = *chain.From(event.GetSeq(), event.GetHash())
		return nil
	}
	return &chain.Broken{ConversationID: event.GetConversationId(), Seq: event.GetSeq(), Reason: reason}
}

// verifyPage checks a page that a program asked for.
func verifyPage(conversationID string, after uint64, page *clientv1.Page, backward bool) error {
	events := page.GetEvents()
	if backward {
		events = slices.Clone(events)
		slices.Reverse(events)
	}
	var v chain.Verifier
	// Where a page begins that does not begin after a seq is up to the server.
	last, anywhere := after, backward
	for _, event := range events {
		if event.GetConversationId() != conversationID {
			return &chain.Broken{ConversationID: conversationID, Seq: event.GetSeq(), Reason: "it belongs to another conversation"}
		}
		if event.GetSeq() != last+1 && !anywhere {
			if !covered(page.GetHidden(), last+1, event.GetSeq()) {
				return &chain.Broken{ConversationID: conversationID, Seq: event.GetSeq(), Reason: "the log has a hole before it"}
			}
			v.Skip()
		}
		if err := verify(&v, event); err != nil {
			return err
		}
		last, anywhere = event.GetSeq(), false
	}
	return nil
}

// covered reports whether hidden stretches cover everything from seq up to but not including end.
func covered(hidden []*conversationv1.Range, seq, end uint64) bool {
	hidden = slices.Clone(hidden)
	slices.SortFunc(hidden, func(a, b *conversationv1.Range) int {
		if a.GetFirst() < b.GetFirst() {
			return -1
		}
		return 1
	})
	for _, h := range hidden {
		if h.GetFirst() <= seq {
			seq = max(seq, h.GetLast()+1)
		}
	}
	return seq >= end
}
