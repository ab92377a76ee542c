package client

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// Conversations that are filled at the same time, and events asked for at once.
	maxFills = 4
	fillPage = 128
	// Pages in a row that bring nothing before the client believes that there is nothing.
	maxStuck = 5
)

// missing notes that events up to head are missing and gets them. The lock is held, as in all that follows.
func (c *Client) missing(conv *stream, head uint64) {
	if !conv.filling && !conv.queued && !conv.broken && conv.search == nil {
		c.stats.GapsSeen++
	}
	c.fill(conv, head)
}

// fill gets the events after last up to head by reading, when it is the conversation's turn and the callbacks have room.
func (c *Client) fill(conv *stream, head uint64) {
	conv.head = max(conv.head, head)
	if conv.filling || conv.queued || conv.broken || conv.gone || conv.search != nil {
		return
	}
	conv.queued = true
	c.behind = append(c.behind, conv)
	c.pump()
}

// pump begins fills that were waiting.
func (c *Client) pump() {
	for len(c.behind) > 0 && c.fills < maxFills && c.callbacks.HasRoomForPage() {
		conv := c.behind[0]
		if c.behind = c.behind[1:]; len(c.behind) == 0 {
			c.behind = nil
		}
		if conv.queued = false; conv.gone || conv.broken || conv.search != nil {
			continue
		}
		c.requests.Ask(c.pageAfter(conv))
	}
}

// pageAfter is the request for the page after last.
func (c *Client) pageAfter(conv *stream) *request.Request {
	conv.filling = true
	c.fills++
	read := &clientv1.Read{ConversationId: conv.id, Limit: fillPage}
	return &request.Request{
		Frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: read}},
		// Pushed events may close the gap while the request waits.
		Prepare: func() { read.After = conv.last },
		Done: func(answer *clientv1.ServerFrame, err error) {
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
	if conv.gone || conv.broken || conv.search != nil {
		return
	}
	c.stats.PagesRead++
	before := conv.last
	seq, err := c.merge(conv, page)
	c.proceed(conv, seq, err, readEvent)
	switch {
	case err != nil || conv.gone || conv.broken || conv.search != nil || conv.filling || conv.queued || conv.last >= conv.head:
	case conv.last > before:
		conv.stuck = 0
		c.fill(conv, conv.head)
	case conv.stuck < maxStuck:
		// What was announced must be there, so it comes a little later; unless the user may not see it any more.
		wait := c.cfg.Backoff.wait(conv.stuck)
		conv.stuck++
		c.requests.AskAfter(c.pageAfter(conv), wait)
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
func (conv *stream) asRead(event *clientv1.Event) arrival {
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
