package client

// Fork describes that a conversation's log went back at the server.
type Fork struct {
	// ConversationID names the conversation.
	ConversationID string
	// From is the newest seq that the program has received, as an event or as the outcome of a command.
	From uint64
	// To is the last event that the program and the server have in common, as far as the client knows; everything above it was
	// undone. It is below the first event that the user may see if the client remembers no common event.
	To uint64
	// Commands are the user's own commands above To that the client still had, in their order. They are sent again under the same
	// ids before all others of the conversation. Commands that refer to an event above To are not sent again: they end with
	// ErrUndone. An answer to a message that was undone is sent as a message without a reference.
	Commands []*Ticket
}
