package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/conversation"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Ticket is one command in the outbox.
//
// The commands of a conversation are committed in their order: the next one is sent when the outcome of the one before is known.
type Ticket struct {
	// ConversationID is the conversation of the command, empty for a create.
	ConversationID string
	// CommandID is the id under which it can be repeated.
	CommandID string

	body *conversationv1.Body
	// lane is what the command keeps its order in; see outbox.
	lane string
	// attempt is what is known of the copies that were sent.
	attempt attempt

	done chan struct{}
	// request sends the command; nil while it waits for its turn.
	request *request.Request
	// shared says that more than one caller may wait for it.
	shared  bool
	outcome *conversationv1.Outcome
	err     error
	// span covers the command, nil without a tracer; parent is how it is told to the gateway, traceID the trace to look up.
	span            trace.Span
	parent, traceID string
}

func newTicket(conversationID, commandID string, body *conversationv1.Body) *Ticket {
	ticket := &Ticket{ConversationID: conversationID, CommandID: commandID, body: body, lane: conversationID, done: make(chan struct{})}
	if conversationID == "" {
		ticket.lane = commandID // a create waits for nothing
	}
	return ticket
}

// Done is closed when the outcome is known.
func (t *Ticket) Done() <-chan struct{} { return t.done }

// Wait waits for the outcome. The error is a *RefusedError when the command was refused for good, ErrClosed or a *ClosedError
// when the client ended first, an *UnconfirmedError when gateways kept refusing to take a command that had been sent before, or
// wraps ErrOutcomeUnknown and the context's error when ctx ended first; the command then stays in the outbox.
func (t *Ticket) Wait(ctx context.Context) (*conversationv1.Outcome, error) {
	select {
	case <-t.done:
		return t.outcome, t.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	}
}

// TraceID names the trace in which the way of the command can be looked up, as 32 hex digits: the one that the gateway answered
// with, or the client's own. It is empty until Done is closed, and afterwards when there is no such trace.
func (t *Ticket) TraceID() string {
	select {
	case <-t.done:
		return t.traceID
	default:
		return ""
	}
}

// resolve ends the command. The answer is nil when there was none.
func (t *Ticket) resolve(answer *clientv1.ServerFrame, err error) {
	if t.err = err; err == nil {
		t.outcome = answer.GetOutcome()
	}
	t.endSend(answer.GetTraceparent(), t.outcome, err)
	close(t.done)
}

// key names the command.
func (t *Ticket) key() commandKey { return commandKey{t.ConversationID, t.CommandID} }

// Submit gives a command to the outbox and waits for its outcome: it is committed when the error is nil. When ctx ends, the wait
// ends, but a command that may have been sent is not taken back: the error wraps ErrOutcomeUnknown. A command of which no copy
// was ever sent is taken back, and the error is the context's alone. The conversation is empty exactly for a create. The body
// must not be changed any more.
func (c *Client) Submit(ctx context.Context, conversationID string, body *conversationv1.Body) (*conversationv1.Outcome, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("client: make a command id: %w", err)
	}
	return c.SubmitID(ctx, conversationID, id.String(), body)
}

// SubmitID is Submit with a command id of the caller's: a UUIDv7 in canonical lower-case form. The same id of the same command
// has the same outcome once it is committed, after any time and however often it is given. A command that was refused is
// judged anew when it is given again.
func (c *Client) SubmitID(ctx context.Context, conversationID, commandID string, body *conversationv1.Body) (*conversationv1.Outcome, error) {
	ticket, err := c.enqueue(ctx, conversationID, commandID, body)
	if err != nil {
		return nil, err
	}
	outcome, err := ticket.Wait(ctx)
	if errors.Is(err, ErrOutcomeUnknown) && c.withdraw(ticket) {
		return nil, fmt.Errorf("client: the command was not sent: %w", ctx.Err())
	}
	return outcome, err
}

// Enqueue gives a command to the outbox and does not wait.
func (c *Client) Enqueue(conversationID string, body *conversationv1.Body) (*Ticket, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("client: make a command id: %w", err)
	}
	return c.EnqueueID(conversationID, id.String(), body)
}

// EnqueueID is Enqueue with a command id of the caller's. If that command is in the outbox already, its ticket is given.
func (c *Client) EnqueueID(conversationID, commandID string, body *conversationv1.Body) (*Ticket, error) {
	return c.enqueue(context.Background(), conversationID, commandID, body)
}

// enqueue is EnqueueID, with the span of a context as the parent of the command's.
func (c *Client) enqueue(ctx context.Context, conversationID, commandID string, body *conversationv1.Body) (*Ticket, error) {
	if !conversation.AdmissibleCommandID(commandID) {
		return nil, errors.New("client: the command id must be a UUIDv7 in canonical lower-case form")
	}
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.outbox.enqueue(ctx, newTicket(conversationID, commandID, body))
}

func (c *Client) withdraw(ticket *Ticket) bool {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.outbox.withdraw(ticket)
}
