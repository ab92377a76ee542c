package client

import (
	"context"
	"fmt"
	"sync"
)

// Client is one device of one user. It is safe for concurrent use.
type Client struct {
	cfg     Config
	session *session
	// ended is closed when all goroutines of the client have ended.
	ended chan struct{}

	// mu guards stop, which is nil before Start.
	mu   sync.Mutex
	stop context.CancelFunc
}

// New creates a client that is not started.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, ended: make(chan struct{})}
	c.session = newSession(&c.cfg)
	return c, nil
}

// Start loads the positions and starts to connect. The client reconnects until Close or until ctx ends. Start does not wait for a
// connection: commands may be submitted at any time, even before Start.
func (c *Client) Start(ctx context.Context) error {
	c.mu.Lock()
	if c.stop != nil || c.State() == Closed {
		c.mu.Unlock()
		return errStarted
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.mu.Unlock()
	if c.cfg.Cursors != nil {
		positions, err := c.cfg.Cursors.Load(ctx)
		if err != nil {
			err = fmt.Errorf("client: load positions: %w", err)
			c.session.close(err)
			c.stop()
			close(c.ended)
			return err
		}
		c.session.restore(positions)
	}
	go func() {
		defer close(c.ended)
		var callbacks sync.WaitGroup
		callbacks.Go(func() { c.session.callbacks.deliver(ctx) })
		c.session.close(c.session.keepConnected(ctx))
		c.stop()
		callbacks.Wait()
		if c.cfg.OnState != nil {
			c.cfg.OnState(Closed)
		}
	}()
	return nil
}

// Run starts the client and waits until it has ended. The error is nil if ctx ended or Close was called.
func (c *Client) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	<-c.ended
	return c.Err()
}

// Close ends the client and waits for all its goroutines, including callbacks. Therefore a callback must not call it, but
// may cancel the context of Start. Commands without an outcome are dropped and end with ErrClosed: they may or may not
// have been committed. Call Flush first to wait for their outcomes. Close may be called more than once. It returns the
// same error as Err.
func (c *Client) Close() error {
	c.mu.Lock()
	stop := c.stop
	if stop == nil {
		// This uses the same lock as the check of stop, so a concurrent Start finds the client closed.
		first := c.session.close(nil)
		c.mu.Unlock()
		if first {
			close(c.ended)
		}
		return nil
	}
	c.mu.Unlock()
	stop()
	<-c.ended
	return c.Err()
}

// Ended is closed when the client has ended, by Close, by its context or by the gateway; then Err returns the reason.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Err is the reason why the client ended. It is a *ClosedError if the gateway asked the client to stay away. It is nil if
// the client was closed or still runs.
func (c *Client) Err() error {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.err
}

// State returns the present state of the client.
func (c *Client) State() State {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.state
}

// Ready waits until the client is connected.
func (c *Client) Ready(ctx context.Context) error {
	c.session.mu.Lock()
	connected, closed := c.session.connected, c.session.state == Closed
	c.session.mu.Unlock()
	if closed {
		return c.session.reason()
	}
	select {
	case <-connected:
		return nil
	case <-c.ended:
		return c.session.reason()
	case <-ctx.Done():
		return fmt.Errorf("client: wait for a connection: %w", ctx.Err())
	}
}

// UserID is the user that the token identifies; empty before the first connection.
func (c *Client) UserID() string {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.userID
}

// Position returns the newest seq of a conversation that was passed to the program or is queued for it. It returns false
// for a conversation that the client does not know.
func (c *Client) Position(conversationID string) (seq uint64, known bool) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	return c.session.inbox.Position(conversationID)
}

// Stats are counters over the lifetime of a client.
type Stats struct {
	// Connects is the number of connections. Reconnects is the number of connections after the first.
	Connects, Reconnects uint64
	// Events is the number of events passed to OnEvent. Hidden is the number of hidden stretches.
	Events, Hidden uint64
	// RepeatsDropped is the number of events that were received again.
	RepeatsDropped uint64
	// GapsSeen is how often events were found missing. PagesRead is the number of pages read to fill gaps.
	GapsSeen, PagesRead uint64
	// EventsPutOff is the number of events that did not fit in the queue of callbacks; they are read again later.
	EventsPutOff uint64
	// StraysDropped is the number of events of conversations that the gateway had not named yet.
	StraysDropped uint64
	// ChainBreaks is how often an event contradicted the chain, including cases that a second read resolved.
	ChainBreaks uint64
	// Forks is how often the server's log of a conversation went back.
	Forks uint64
	// Retries is how often a request was sent again. Timeouts is how often the reason was that no answer came in time.
	Retries, Timeouts uint64
	// Acks is the number of acknowledgement frames.
	Acks uint64
}

// Stats returns the present counters.
func (c *Client) Stats() Stats {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	in, requests := c.session.inbox.Stats(), c.session.requests
	return Stats{
		Connects: c.session.connects, Reconnects: max(c.session.connects, 1) - 1,
		Events: in.Events, Hidden: in.Hidden, RepeatsDropped: in.RepeatsDropped, GapsSeen: in.GapsSeen, PagesRead: in.PagesRead,
		EventsPutOff: in.EventsPutOff, StraysDropped: in.StraysDropped, ChainBreaks: in.ChainBreaks, Forks: in.Forks,
		Retries: requests.Retries, Timeouts: requests.Timeouts, Acks: in.Acks,
	}
}

// MarkRead notes that the user has read a conversation up to seq. The position is sent with the next acknowledgement, and again
// after a lost connection. A conversation that the client does not know is ignored.
func (c *Client) MarkRead(conversationID string, seq uint64) {
	c.session.mu.Lock()
	defer c.session.mu.Unlock()
	c.session.inbox.MarkRead(conversationID, seq)
}
