package client

// Fork describes how a conversation's log went back at the server.
type Fork struct {
	// ConversationID names the conversation.
	ConversationID string
	// From is the newest seq that the program has received, as an event or as the outcome of a command.
	From uint64
	// To is the last event that the program and the server have in common, as far as the client knows. Every event above
	// it was undone. If the client remembers no common event, To is below the first event that the user may see.
	To uint64
	// Commands are the user's own commands above To that the client still had, in their order. They are sent again under
	// the same ids, before all other commands of the conversation. A command that refers to an event above To is not sent
	// again: it ends with ErrUndone. But a reply to an undone message is sent as a message without a reference.
	Commands []*Ticket
}
