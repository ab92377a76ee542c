package inbox

import "github.com/runnelhq/runnel/pkg/client/internal/stream"

// Conversation is one conversation of the user: its position in its log, and the work in progress for it.
type Conversation struct {
	*stream.Stream

	env *env

	// delivered is the newest seq that was passed to the program, read the newest one that MarkRead named.
	delivered, read uint64
	// unacked means that it is in the list of conversations to acknowledge, unsentRead that read was not sent yet.
	unacked, unsentRead bool

	// filling is where it stands with reading what is missing.
	filling filling
	// emptyPages is the number of empty pages in a row.
	emptyPages int

	// doubted means that an event did not verify and is being read again; broken means that it did not verify the second time either.
	doubted, broken bool
	// suspicion is the search for a fork; nil while the log is not in doubt.
	suspicion *suspicion
	// followed means that this connection pushes the events after Last.
	followed bool
	// listedBy is the connection whose gateway last listed it as one of the user's. nameFirst means that the next connect frame
	// names it before others; see reconnectForUnnamed.
	listedBy  *connection
	nameFirst bool
	// announced means that the program knows it.
	announced bool
	// leaving means that the membership ended with the event leaveAt; gone that everything up to that event was handed over.
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
	// queued means that it waits for its turn.
	queued
	// reading means that a page was asked for.
	reading
)

// stopped returns true if no events of the conversation are accepted or read now.
func (conv *Conversation) stopped() bool { return conv.gone || conv.broken || conv.suspicion != nil }

// settled returns true if nothing is missing, in doubt or in progress.
func (conv *Conversation) settled() bool { return conv.filling == idle && !conv.stopped() }
