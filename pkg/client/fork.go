package client

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/conversation"
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

// forked tells the program that the log of a conversation went back, and sends again what was undone. From is where the
// conversation was. The lock is held.
func (c *Client) forked(conv *inbox.Conversation, from uint64, hash []byte) {
	to := conv.Last()
	undone := c.record.take(conv.ID(), to)
	fork := Fork{ConversationID: conv.ID(), From: from, To: to}
	if n := len(undone); n > 0 {
		fork.From = max(fork.From, undone[n-1].seq)
	}
	c.cfg.Log.Warn("the server's log of a conversation went back", "conversation_id", conv.ID(), "from", fork.From, "to", to)
	fork.Commands = c.again(conv.ID(), to, undone)
	c.callbacks.fork(conv, conv.Branch(), fork, hash)
}

// again puts commands that were undone into the outbox, before those that wait and after one that is on its way.
func (c *Client) again(conversationID string, to uint64, undone []committed) []*Ticket {
	if len(undone) == 0 {
		return nil
	}
	all := make([]*Ticket, 0, len(undone))
	var queue []*Ticket
	for _, command := range undone {
		ticket := &Ticket{
			ConversationID: conversationID, CommandID: command.commandID, body: command.body,
			lane: conversationID, shared: true, done: make(chan struct{}),
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
	waiting := c.outbox[conversationID]
	if len(waiting) > 0 {
		c.outbox[conversationID] = slices.Insert(waiting, 1, queue...) // the first is on its way
	} else {
		c.outbox[conversationID] = queue
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
