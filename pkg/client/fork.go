package client

import (
	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
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
	fork := Fork{ConversationID: conv.ID(), To: conv.Last()}
	newest, tickets := c.outbox.resubmit(conv.ID(), fork.To, c.userID)
	fork.From, fork.Commands = max(from, newest), tickets
	c.cfg.Log.Warn("the server's log of a conversation went back", "conversation_id", conv.ID(), "from", fork.From, "to", fork.To)
	c.callbacks.fork(conv, conv.Branch(), fork, hash)
}
