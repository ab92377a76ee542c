package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/terminal"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// maxUnsent is the number of messages that may wait for their outcome. If there are more, reading the input pauses.
	// It is below the client's MaxOutbox, so that messages of a long input are not dropped.
	maxUnsent = 500
	// progressAfter is the waiting time at the end after which the user is told what the chat waits for.
	progressAfter = 2 * time.Second
)

// send puts a line into the outbox; its ticks are printed as they change. If too many messages wait for their outcome,
// send waits for one outcome. It returns an error only if no further messages can be sent.
func (c *chat) send(ctx context.Context, id, text string) error {
	timeout := time.NewTimer(c.wait)
	defer timeout.Stop()
	select {
	case c.unsent <- struct{}{}:
	case <-timeout.C:
		return fmt.Errorf("%d messages wait to be sent, and none was for %s; the rest of the input was not read, from this line on: %s", maxUnsent, c.wait, text)
	case <-ctx.Done():
		return fmt.Errorf("not sent: %s", text)
	case <-c.client.Ended():
		return c.client.Err()
	}
	c.printf("○ %s", text)
	ticket, err := c.client.Enqueue(id, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}})
	if err != nil {
		<-c.unsent
		c.failf("\"%s\" was not sent: %v", text, err)
		return nil
	}
	c.mu.Lock()
	c.sending[ticket] = text
	c.mu.Unlock()
	c.watching.Go(func() { // ends with the ticket, which ends with the client
		<-ticket.Done()
		<-c.unsent
		c.sent(ticket)
	})
	return nil
}

// sent prints the outcome of a message.
func (c *chat) sent(ticket *client.Ticket) {
	outcome, err := ticket.Wait(context.Background())
	c.mu.Lock()
	text, told := c.sending[ticket]
	delete(c.sending, ticket)
	progressed := c.progressed
	c.mu.Unlock()
	if progressed != nil {
		progressed()
	}
	var closed *client.ClosedError
	switch {
	case err == nil:
		c.commit(outcome, ticket.CommandID, text)
	case !told: // finish has reported it
	case errors.Is(err, client.ErrClosed), errors.Is(err, client.ErrOutcomeUnknown), errors.As(err, &closed):
		c.failf("it is not known whether \"%s\" was sent: %v", text, err)
	default:
		c.failf("\"%s\" was not sent: %v", text, err)
	}
}

// failf prints that a line was not carried out, and counts it.
func (c *chat) failf(format string, args ...any) {
	c.mu.Lock()
	c.failures++
	c.mu.Unlock()
	c.printf("! %s", terminal.Sprintf(format, args...))
}

// finish waits until all commands in the outbox have an outcome. It gives up if no outcome came for c.wait. Then the
// error states how many commands have no outcome, and the commands are listed.
func (c *chat) finish(ctx context.Context) error {
	flushing, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	giveUp := time.AfterFunc(c.wait, cancel)
	defer giveUp.Stop()
	c.mu.Lock()
	c.progressed = func() { giveUp.Reset(c.wait) }
	c.mu.Unlock()
	progress := time.AfterFunc(progressAfter, func() {
		c.mu.Lock()
		n := len(c.sending)
		c.mu.Unlock()
		c.printf("· messages to be sent: %d; gives up after %s without progress, Ctrl-C ends at once", n, c.wait)
	})
	defer progress.Stop()
	var pending *client.PendingError
	if err := c.client.Flush(flushing); !errors.As(err, &pending) {
		return err
	}
	for _, ticket := range pending.Unsent {
		c.printf("! not sent: %s", c.take(ticket))
	}
	for _, ticket := range pending.Unknown {
		c.printf("! it is not known whether this was sent: %s", c.take(ticket))
	}
	return fmt.Errorf("gave up after %s without progress; commands that were not sent: %d, that were sent with an unknown outcome: %d",
		c.wait, len(pending.Unsent), len(pending.Unknown))
}

// take returns the text that is shown for a command, and stops reporting the command's outcome.
func (c *chat) take(ticket *client.Ticket) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text, isMessage := c.sending[ticket]
	delete(c.sending, ticket)
	if !isMessage {
		return "command " + ticket.CommandID
	}
	return text
}
