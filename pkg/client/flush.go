package client

import (
	"context"
	"fmt"
	"strings"
)

// PendingError means that Flush ended while commands had no outcome.
type PendingError struct {
	// Unsent are commands of which no copy was ever sent. Unknown are commands that were sent and may have been
	// committed. Within a conversation, both are in the order of the outbox.
	Unsent, Unknown []*Ticket
	// Cause is why Flush ended: the context's error, or the reason why the client ended.
	Cause error
}

func (e *PendingError) Error() string {
	var parts []string
	if n := len(e.Unsent); n > 0 {
		parts = append(parts, fmt.Sprintf("%d not sent", n))
	}
	if n := len(e.Unknown); n > 0 {
		parts = append(parts, fmt.Sprintf("%d sent with an unknown outcome", n))
	}
	return "client: commands without an outcome: " + strings.Join(parts, ", ") + ": " + e.Cause.Error()
}

func (e *PendingError) Unwrap() error { return e.Cause }

// Flush waits until every command that is now in the outbox has an outcome, committed or refused; the tickets contain the
// outcomes. Call it before Close, which drops commands without an outcome. The error is a *PendingError if ctx or the
// client ended first. If ctx ended first, the commands stay in the outbox.
func (c *Client) Flush(ctx context.Context) error {
	c.session.mu.Lock()
	tickets := c.session.outbox.tickets()
	c.session.mu.Unlock()
	for _, ticket := range tickets {
		select {
		case <-ticket.done:
		case <-ctx.Done():
			return c.pending(tickets, ctx.Err())
		}
	}
	return c.pending(tickets, nil)
}

// pending returns the error for the tickets without an outcome, because the context or the client ended; nil if every
// ticket has one.
func (c *Client) pending(tickets []*Ticket, cause error) error {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	found := &PendingError{Cause: cause}
	if closed := c.session.outbox.closed; closed != nil {
		found.Cause = closed
	}
	for _, ticket := range tickets {
		switch {
		case c.session.outbox.hasOutcome(ticket):
		case ticket.unsent():
			found.Unsent = append(found.Unsent, ticket)
		default:
			found.Unknown = append(found.Unknown, ticket)
		}
	}
	if len(found.Unsent)+len(found.Unknown) == 0 {
		return nil
	}
	return found
}
