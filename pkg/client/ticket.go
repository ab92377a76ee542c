package client

import (
	"context"
	"fmt"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Ticket is one command in the outbox.
//
// The commands of a conversation are committed in order: the next one is sent when the outcome of the previous one is known.
type Ticket struct {
	// ConversationID is the conversation of the command, empty for a create.
	ConversationID string
	// CommandID is the id for submitting the command again.
	CommandID string

	body *conversationv1.Body
	// queue is the name of the outbox queue in which the command waits: the conversation, or the command id for a create.
	queue string
	// attempt records what is known about the copies that were sent.
	attempt attempt

	done chan struct{}
	// request sends the command; nil while the command waits in its queue.
	request *request.Request
	// shared means that more than one caller may wait for the ticket.
	shared  bool
	outcome *conversationv1.Outcome
	err     error
	span    sendSpan
}

func newTicket(conversationID, commandID string, body *conversationv1.Body) *Ticket {
	ticket := &Ticket{ConversationID: conversationID, CommandID: commandID, body: body, queue: conversationID, done: make(chan struct{})}
	if conversationID == "" {
		ticket.queue = commandID // a create has a queue of its own
	}
	return ticket
}

// Done is closed when the outcome is known.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Wait waits for the outcome. The error is a *RefusedError if the command was refused for good. It is ErrClosed or a
// *ClosedError if the client ended first. It is an *UnconfirmedError if gateways kept rejecting a command of which a copy
// had been sent. If ctx ended first, it wraps ErrOutcomeUnknown and the context's error; the command then stays in the
// outbox.
func (t *Ticket) Wait(ctx context.Context) (*conversationv1.Outcome, error) {
	select {
	case <-t.done:
		return t.outcome, t.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
}

// TraceID identifies the trace of the command, as 32 hex digits: the trace in the gateway's answer, or the client's own
// trace. It is empty until Done is closed, and also afterwards if there is no trace.
func (t *Ticket) TraceID() string {
	select {
	case <-t.done:
		return t.span.traceID
	default:
		return ""
	}
}

// resolve ends the command. answer is nil if there was no answer.
func (t *Ticket) resolve(answer *clientv1.ServerFrame, err error) {
	if t.err = err; err == nil {
		t.outcome = answer.GetOutcome()
	}
	t.span.end(answer.GetTraceparent(), t.outcome, err)
	close(t.done)
}

// unsent reports whether no copy of the command was ever sent, neither by this client nor by an earlier submission that
// the client remembers.
func (t *Ticket) unsent() bool {
	return !t.attempt.unconfirmed && (t.request == nil || !t.request.WasSent())
}

// key returns the command's key.
func (t *Ticket) key() commandKey { return commandKey{t.ConversationID, t.CommandID} }
