package inbox

import "github.com/runnelhq/runnel/pkg/client/internal/stream"

// Conversation is one conversation of the user: its place in its log, and what is under way for it.
type Conversation struct {
	*stream.Stream

	env *env

	// delivered is the newest seq that the program has been told of, read the newest one that MarkRead named.
	delivered, read uint64
	// unacked says that it is in the list of what is to be acknowledged, unsentRead that read was not sent yet.
	unacked, unsentRead bool

	// filling is where it stands with reading what is missing.
	filling filling
	// emptyPages is how many pages in a row brought nothing.
	emptyPages int

	// doubted says that an event did not verify and is read once more; broken that this did not help.
	doubted, broken bool
	// suspicion is the search for a fork; nil while the log is not in doubt.
	suspicion *suspicion
	// followed says that this connection pushes what comes after Last.
	followed bool
	// listedBy is the connection whose gateway last named it as one of the user's. nameFirst says that the next connect frame
	// has room for it before others; see reconnectForUnnamed.
	listedBy  *connection
	nameFirst bool
	// announced says that the program knows of it.
	announced bool
	// leaving says that the membership ended with the event leaveAt; gone that all of it was handed over.
	leaving, gone bool
	leaveAt       uint64
	// receipt is the version of the newest receipt.
	receipt int64
}

// filling is where a conversation stands with reading what is missing:
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

// stopped returns true if nothing of the conversation is taken or read now.
func (conv *Conversation) stopped() bool { return conv.gone || conv.broken || conv.suspicion != nil }

// settled returns true if nothing is missing, in doubt or under way.
func (conv *Conversation) settled() bool { return conv.filling == idle && !conv.stopped() }
