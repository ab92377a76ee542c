package client

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
