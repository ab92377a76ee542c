package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/conversation"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Ticket is one command in the outbox.
//
// Of each conversation only the oldest command is on its way; the next one is sent when its outcome is known. That alone keeps
// their order through lost connections, time-outs and temporary errors. Creates stand each for itself.
type Ticket struct {
	// ConversationID is the conversation of the command, empty for a create.
	ConversationID string
	// CommandID is the id under which it can be repeated.
	CommandID string

	body *conversationv1.Body
	// lane is the conversation that a create is put in order with, when it is sent again after a fork.
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

// key is what commands are put in order by.
func (t *Ticket) key() string {
	switch {
	case t.lane != "":
		return t.lane
	case t.ConversationID == "":
		return t.CommandID
	}
	return t.ConversationID
}

// id names the command.
func (t *Ticket) id() commandKey { return commandKey{t.ConversationID, t.CommandID} }

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

// enqueue is EnqueueID below the span of a context.
func (c *Client) enqueue(ctx context.Context, conversationID, commandID string, body *conversationv1.Body) (*Ticket, error) {
	if !conversation.AdmissibleCommandID(commandID) {
		return nil, errors.New("client: the command id must be a UUIDv7 in canonical lower-case form")
	}
	ticket := &Ticket{ConversationID: conversationID, CommandID: commandID, body: body, done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == Closed {
		if c.err != nil {
			return nil, c.err
		}
		return nil, ErrClosed
	}
	waiting := c.outbox[ticket.key()]
	for _, before := range waiting {
		if before.CommandID != commandID {
			continue
		}
		if !proto.Equal(before.body, body) {
			return nil, &RefusedError{
				Code:    conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT,
				Message: "the command id is in the outbox with another body", Field: "submit.command_id",
			}
		}
		before.shared = true
		return before, nil
	}
	if c.tickets >= c.cfg.MaxOutbox {
		return nil, ErrOutboxFull
	}
	before := c.refusals.find(ticket.id(), time.Now())
	ticket.attempt.number, ticket.attempt.unconfirmed = before.attempt, before.unconfirmed
	ticket.beginSend(ctx, c.tracer)
	c.tickets++
	c.outbox[ticket.key()] = append(waiting, ticket)
	if len(waiting) == 0 {
		c.submit(ticket)
	}
	return ticket, nil
}

// submit begins to send the oldest command of a conversation. The lock is held.
func (c *Client) submit(ticket *Ticket) {
	submit := &clientv1.Submit{
		ConversationId: ticket.ConversationID, CommandId: ticket.CommandID, Body: ticket.body, Traceparent: ticket.parent,
	}
	ticket.attempt.note = ticket.happened
	ticket.attempt.accepted = func() { c.callbacks.accepted(ticket) }
	ticket.request = &request.Request{
		Policy:  &ticket.attempt,
		Frame:   &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: submit}},
		Prepare: func() { submit.Attempt = ticket.attempt.number },
		Done: func(answer *clientv1.ServerFrame, err error) {
			if err == nil && answer.GetOutcome() == nil {
				err = errAnswer
			}
			c.remember(ticket, answer, err)
			ticket.resolve(answer, err)
			c.leave(ticket)
		},
	}
	c.requests.Ask(ticket.request)
}

// remember keeps what is known of a command that leaves the outbox, for when it is given again or undone.
func (c *Client) remember(ticket *Ticket, answer *clientv1.ServerFrame, err error) {
	switch {
	case err == nil:
		c.refusals.forget(ticket.id())
		c.record.add(committed{
			conversationID: answer.GetOutcome().GetConversationId(), commandID: ticket.CommandID,
			seq: answer.GetOutcome().GetSeq(), body: ticket.body,
		})
	case ticket.attempt.number > 0 || ticket.attempt.unconfirmed:
		c.refusals.keep(ticket.id(), past{attempt: ticket.attempt.number, unconfirmed: ticket.attempt.unconfirmed, at: time.Now()})
	}
}

// leave takes a command out of the outbox and begins the next one. The lock is held.
func (c *Client) leave(ticket *Ticket) {
	c.tickets--
	rest := slices.DeleteFunc(c.outbox[ticket.key()], func(other *Ticket) bool { return other == ticket })
	if len(rest) == 0 {
		delete(c.outbox, ticket.key())
		return
	}
	c.outbox[ticket.key()] = rest
	if rest[0].request == nil && c.state != Closed {
		c.submit(rest[0])
	}
}

// withdraw takes back a command of which no copy was sent, this time or when it was given before.
func (c *Client) withdraw(ticket *Ticket) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-ticket.done:
		return false
	default:
	}
	switch {
	case ticket.shared || ticket.attempt.unconfirmed:
		return false
	case ticket.request == nil:
		ticket.resolve(nil, context.Canceled)
		c.leave(ticket)
	case !ticket.request.WasSent():
		c.requests.Finish(ticket.request, nil, context.Canceled)
	default:
		return false
	}
	return true
}
