package client

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/conversation"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Fork says that a conversation's log went back at the server.
type Fork struct {
	// ConversationID names the conversation.
	ConversationID string
	// From is the newest seq that the program was told of, as an event or as the outcome of a command.
	From uint64
	// To is the last event that the program and the server have in common, as far as the client knows: what lies above it was
	// undone. It is below the first event that the user may see when the client remembers no event in common.
	To uint64
	// Commands are the user's own commands above To, as far as this client still had them, in their order. They are sent again
	// under the same ids before all others of the conversation. Those that refer to an event above To are not: they end with
	// ErrUndone. An answer to a message that was undone is sent as a message that answers none.
	Commands []*Ticket
}

// search looks for the last event that the client and the server have in common. It reads the server's events at seqs that the
// client remembers:
//
//	        event is the same
//	probe ─────────────────────▶ no fork
//	  │ another one, or none
//	  ▼                remembered events at or below the server's head, newest first in steps that double, then halving
//	descend ──────────▶ rewind
//
// Only a few conversations are searched at the same time; when all are done the client connects anew.
type search struct {
	// reason is what is wrong with the log if it is no fork; nil when nothing is.
	reason error
	// Marks below low are in common, those from high on are not; step is how far the next look goes back.
	low, high, step int
	// hash is the server's hash of the last mark in common.
	hash []byte
	// begun says that it no longer waits for its turn.
	begun bool
}

// suspect begins to ask history whether the server's log of a conversation is the one that the client has. If it is, and reason
// is not nil, the log contradicts itself. The lock is held, as in all that follows.
func (c *Client) suspect(conv *stream, reason error) {
	if conv.search != nil {
		if conv.search.reason == nil {
			conv.search.reason = reason
		}
		return
	}
	conv.search = &search{reason: reason}
	conv.held = nil
	delete(c.catchingUp, conv)
	c.suspects = append(c.suspects, conv)
	c.investigate()
}

// investigate begins searches that were waiting.
func (c *Client) investigate() {
	for len(c.suspects) > 0 && c.searches < maxFills {
		conv := c.suspects[0]
		if c.suspects = c.suspects[1:]; len(c.suspects) == 0 {
			c.suspects = nil
		}
		if !conv.gone && conv.search != nil {
			c.searches++
			conv.search.begun = true
			c.probe(conv)
		}
	}
}

// lookAt reads the server's event at a seq.
func (c *Client) lookAt(conv *stream, seq uint64, done func(page *clientv1.Page)) {
	read := &clientv1.Read{ConversationId: conv.id, After: max(seq, 1) - 1, Limit: 1}
	c.requests.Ask(&request.Request{
		Frame: &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: read}},
		Done: func(answer *clientv1.ServerFrame, err error) {
			page := answer.GetPage()
			switch {
			case c.state == Closed:
			case conv.gone:
				c.found(conv)
			case err != nil || page == nil:
				// Not a member any more, say: the server tells what becomes of it.
				c.cfg.Log.Warn("could not compare a conversation with the server", "conversation_id", conv.id, "error", err)
				c.sound(conv)
			default:
				done(page)
			}
		},
	})
}

// probe compares the newest event of the client.
func (c *Client) probe(conv *stream) {
	c.lookAt(conv, conv.last, func(page *clientv1.Page) {
		had := conv.trail.at(conv.last)
		theirs := eventAt(page, conv.last)
		hidden := covered(page.GetHidden(), conv.last, conv.last+1)
		// A hash that the client does not know counts as the same.
		same := hidden || conv.last == 0 || (theirs != nil && (had == nil || had.is(theirs.GetHash())))
		switch {
		case same && page.GetHead() >= max(conv.last, c.record.newest(conv.id)):
			c.sound(conv)
		case same && page.GetHead() >= conv.last:
			// Only what this client knows from outcomes is gone.
			c.rewind(conv, conv.last, theirs.GetHash())
		default:
			conv.search.high, conv.search.step = conv.trail.below(min(page.GetHead(), conv.last)), 1
			if theirs != nil && had != nil {
				conv.search.high = min(conv.search.high, len(conv.trail.marks)-1)
			}
			c.descend(conv)
		}
	})
}

// descend looks at the next mark, or rewinds when there is none to look at.
func (c *Client) descend(conv *stream) {
	s := conv.search
	if s.low >= s.high {
		if s.low == 0 {
			c.rewind(conv, max(conv.joined, 1)-1, nil)
			return
		}
		c.rewind(conv, conv.trail.marks[s.low-1].seq, s.hash)
		return
	}
	i := (s.low + s.high) / 2
	if s.low == 0 {
		// Most logs lose only their end.
		i = max(s.high-s.step, 0)
		s.step *= 2
	}
	at := conv.trail.marks[i]
	c.lookAt(conv, at.seq, func(page *clientv1.Page) {
		if theirs := eventAt(page, at.seq); theirs != nil && at.is(theirs.GetHash()) {
			s.low, s.hash = i+1, theirs.GetHash()
		} else {
			s.high = i
		}
		c.descend(conv)
	})
}

// eventAt is the event of a page at a seq; nil for none.
func eventAt(page *clientv1.Page, seq uint64) *clientv1.Event {
	for _, event := range page.GetEvents() {
		if event.GetSeq() == seq {
			return event
		}
	}
	return nil
}

// sound ends a search that found no fork.
func (c *Client) sound(conv *stream) {
	reason := conv.search.reason
	c.found(conv)
	switch {
	case conv.gone || conv.broken:
	case reason != nil:
		c.breakOff(conv, reason)
	case conv.head > conv.last:
		c.fill(conv, conv.head)
	}
}

// found ends a search.
func (c *Client) found(conv *stream) {
	if conv.search != nil && conv.search.begun {
		c.searches--
	}
	conv.search = nil
	c.investigate()
	c.rejoin()
}

// rejoin ends a connection on which conversations are not pushed from where the client is now.
func (c *Client) rejoin() {
	if s := c.session; s != nil && s.rejoin && c.searches == 0 {
		s.fail(errForked)
		s.poke()
	}
}

// rewind goes back to an event that the client and the server have in common.
func (c *Client) rewind(conv *stream, to uint64, hash []byte) {
	undone := c.record.take(conv.id, to)
	fork := Fork{ConversationID: conv.id, From: conv.last, To: to}
	if n := len(undone); n > 0 {
		fork.From = max(fork.From, undone[n-1].seq)
	}
	c.stats.Forks++
	c.cfg.Log.Warn("the server's log of a conversation went back", "conversation_id", conv.id, "from", fork.From, "to", to)

	conv.branch++
	conv.last, conv.delivered = to, min(conv.delivered, to)
	conv.read, conv.readOwed = min(conv.read, to), false
	conv.head, conv.stuck, conv.held = to, 0, nil
	conv.doubted, conv.broken = false, false
	// Receipts of the new branch may have lower versions.
	conv.receipt = 0
	conv.verifier = chain.Verifier{}
	if len(hash) == chain.Size {
		conv.verifier = *chain.From(to, hash)
	}
	conv.trail.cut(to)
	fork.Commands = c.again(conv, to, undone)
	c.callbacks.fork(conv, conv.branch, fork, hash)
	if c.session != nil {
		c.session.rejoin = true
	}
	c.found(conv)
}

// again puts commands that were undone into the outbox, before those that wait and after one that is on its way.
func (c *Client) again(conv *stream, to uint64, undone []committed) []*Ticket {
	if len(undone) == 0 {
		return nil
	}
	all := make([]*Ticket, 0, len(undone))
	var queue []*Ticket
	for _, command := range undone {
		ticket := &Ticket{
			ConversationID: conv.id, CommandID: command.commandID, body: command.body,
			lane: conv.id, shared: true, done: make(chan struct{}),
		}
		if command.body.GetCreate() != nil {
			ticket.ConversationID = ""
		}
		all = append(all, ticket)
		if ticket.body = retarget(c.userID, command.body, to); ticket.body == nil {
			ticket.resolve(nil, ErrUndone)
			continue
		}
		ticket.beginSend(context.Background(), c.tracer)
		queue = append(queue, ticket)
	}
	if len(queue) == 0 {
		return all
	}
	c.tickets += len(queue)
	waiting := c.outbox[conv.id]
	if len(waiting) > 0 {
		c.outbox[conv.id] = slices.Insert(waiting, 1, queue...) // the first is on its way
	} else {
		c.outbox[conv.id] = queue
		c.submit(queue[0])
	}
	return all
}

// retarget is the body of a command that is sent again when everything above a seq was undone; nil when it refers to what was
// undone.
func retarget(sender string, body *conversationv1.Body, to uint64) *conversationv1.Body {
	for _, need := range conversation.Needs(sender, body) {
		if need.Seq <= to {
			continue
		}
		if body.GetMessage() == nil {
			return nil
		}
		body = proto.CloneOf(body)
		body.GetMessage().ReplyTo = 0
	}
	return body
}
