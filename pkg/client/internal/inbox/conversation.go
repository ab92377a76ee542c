package inbox

import "github.com/runnelhq/runnel/pkg/client/internal/stream"

// Conversation is one conversation of the user: its position in its log, and the work in progress for it.
type Conversation struct {
	*stream.Stream

	env *env

	// delivered is the newest seq that was passed to the program. read is the newest seq that MarkRead was called with.
	delivered, read uint64
	// unacked means that the conversation is in the list of conversations to acknowledge. unsentRead means that read was
	// not sent yet.
	unacked, unsentRead bool

	// filling is the state of reading missing events.
	filling filling
	// emptyPages is the number of empty pages in a row.
	emptyPages int

	// doubted means that an event did not verify and is being read again. broken means that it did not verify the second
	// time either.
	doubted, broken bool
	// suspicion is the search for a fork; nil while no search is needed.
	suspicion *suspicion
	// followed means that the gateway pushes the events after Last on this connection.
	followed bool
	// listedBy is the connection on which a gateway last listed the conversation as one of the user's. nameFirst means
	// that the next connect frame must include it before others; see reconnectForUnnamed.
	listedBy  *connection
	nameFirst bool
	// announced means that the program was told of the conversation.
	announced bool
	// leaving means that the membership ended with the event leaveAt. gone means that every event up to leaveAt was
	// handed over.
	leaving, gone bool
	leaveAt       uint64
	// receipt is the version of the newest receipt.
	receipt int64
}

// filling is the state of reading missing events:
//
//	idle ──▶ queued ──▶ reading ──▶ idle
type filling int

const (
	idle filling = iota
	// queued means that the conversation waits for its turn.
	queued
	// reading means that a page was requested.
	reading
)

// stopped returns true if no events of the conversation are accepted or read now.
func (conv *Conversation) stopped() bool { return conv.gone || conv.broken || conv.suspicion != nil }

// settled returns true if no event is missing, no event is in doubt and no read is in progress.
func (conv *Conversation) settled() bool { return conv.filling == idle && !conv.stopped() }
