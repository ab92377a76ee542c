package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/runnelhq/runnel/pkg/conversation"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Submit puts a command into the outbox and waits for its outcome. If the error is nil, the command is committed. If ctx
// ends first, the wait ends. Then a command that may have been sent stays in the outbox, and the error wraps
// ErrOutcomeUnknown. A command of which no copy was ever sent is withdrawn, and the error is only the context's.
// conversationID is empty only for a create. The body must not be changed afterwards.
func (c *Client) Submit(ctx context.Context, conversationID string, body *conversationv1.Body) (*conversationv1.Outcome, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("client: make a command id: %w", err)
	}
	return c.SubmitID(ctx, conversationID, id.String(), body)
}

// SubmitID is Submit with a command id chosen by the caller: a UUIDv7 in canonical lower-case form. Once a command is
// committed, submitting it again with the same id always returns the same outcome, at any later time. A refused command
// is decided again when it is submitted again.
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

// Enqueue puts a command into the outbox and does not wait.
func (c *Client) Enqueue(conversationID string, body *conversationv1.Body) (*Ticket, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("client: make a command id: %w", err)
	}
	return c.EnqueueID(conversationID, id.String(), body)
}

// EnqueueID is Enqueue with a command id chosen by the caller. If that command is already in the outbox, it returns the
// existing ticket.
func (c *Client) EnqueueID(conversationID, commandID string, body *conversationv1.Body) (*Ticket, error) {
	return c.enqueue(context.Background(), conversationID, commandID, body)
}

// enqueue is EnqueueID with the span in ctx as the parent of the command's span.
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
