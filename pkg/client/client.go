package client

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
)

// Client is one device of one user. It is safe for concurrent use.
type Client struct {
	cfg Config
	// callbacks has a lock of its own.
	callbacks *callbacks
	// tracer is nil without a TracerProvider.
	tracer trace.Tracer
	stop   context.CancelFunc
	// ended is closed when everything of the client has ended.
	ended chan struct{}

	mu     sync.Mutex
	state  State
	err    error
	userID string
	// connected is closed while the state is Connected.
	connected chan struct{}
	// session is the connection, nil without one.
	session *session
	// stats has what is counted here: the connections.
	stats Stats

	// Guarded by mu, like all the rest.
	requests *request.Queue
	outbox   *outbox
	inbox    *inbox.Inbox
}

// New makes a client that is not started.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, ended: make(chan struct{}), connected: make(chan struct{})}
	c.requests = request.NewQueue(request.Config{
		Codec: cfg.Codec, Timeout: cfg.RequestTimeout, Backoff: cfg.Backoff.wait, Refused: refusalOf,
		Wake: c.wake,
	})
	if cfg.TracerProvider != nil {
		c.tracer = cfg.TracerProvider.Tracer(scopeName)
	}
	c.callbacks = newCallbacks(&c.cfg, c.tracer, c.handed)
	c.outbox = newOutbox(cfg.MaxOutbox, c.requests, c.tracer, c.callbacks.accepted)
	c.inbox = inbox.New(inbox.Config{
		Start: cfg.Start, Checker: stream.NewChecker(cfg.Codec, cfg.SkipVerify), AckDelay: cfg.AckDelay, Backoff: cfg.Backoff.wait,
		Log: cfg.Log, Program: c.callbacks, Server: server{c.requests}, Commands: &c.outbox.committed,
		Forked: c.forked, Reconnect: c.reconnectForked, Wake: c.wake,
	})
	return c, nil
}

// Start loads the positions and begins to connect, and to connect again until Close or until ctx ends. It does not wait for a
// connection: commands may be given at any time, also before Start.
func (c *Client) Start(ctx context.Context) error {
	c.mu.Lock()
	if c.stop != nil || c.state == Closed {
		c.mu.Unlock()
		return errStarted
	}
	ctx, c.stop = context.WithCancel(ctx)
	c.mu.Unlock()
	if c.cfg.Cursors != nil {
		positions, err := c.cfg.Cursors.Load(ctx)
		if err != nil {
			err = fmt.Errorf("client: load positions: %w", err)
			c.shut(err)
			c.stop()
			close(c.ended)
			return err
		}
		c.restore(positions)
	}
	go func() {
		defer close(c.ended)
		var callbacks sync.WaitGroup
		callbacks.Go(func() { c.callbacks.deliver(ctx) })
		c.shut(c.connect(ctx))
		c.stop()
		callbacks.Wait()
		if c.cfg.OnState != nil {
			c.cfg.OnState(Closed)
		}
	}()
	return nil
}

// Run is Start, and waiting until the client has ended. The error is nil when ctx ended or Close was called.
func (c *Client) Run(ctx context.Context) error {
	if err := c.Start(ctx); err != nil {
		return err
	}
	<-c.ended
	return c.Err()
}

// Close ends the client and waits for all that belongs to it, callbacks included, so it must not be called by one; ending the
// context of Start can. Commands without an outcome end with ErrClosed: whether they were committed is not known. It may be
// called more than once. The error is Err.
func (c *Client) Close() error {
	c.mu.Lock()
	stop := c.stop
	if stop == nil {
		// Under one lock with the look at stop: a Start at the same moment finds it closed.
		first := c.shutLocked(nil)
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

// shut fails everything that waits, the first time it is called. The error is nil when the program wanted it.
func (c *Client) shut(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutLocked(err)
}

// shutLocked is shut under the lock; it reports whether this was the first time.
func (c *Client) shutLocked(err error) (first bool) {
	if c.state == Closed {
		return false
	}
	c.become(Closed)
	c.inbox.Close()
	c.err = err
	reason := err
	if reason == nil {
		reason = ErrClosed
	}
	c.outbox.close(reason)
	c.requests.FailAll(reason)
	return true
}

// Ended is closed when the client has ended, by Close, by its context or by the gateway; then Err says why.
func (c *Client) Ended() <-chan struct{} { return c.ended }

// Err is why the client ended: a *ClosedError when the gateway asked it to stay away; nil when it was closed or still runs.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// State tells how the client stands now.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Ready waits until the client is connected.
func (c *Client) Ready(ctx context.Context) error {
	c.mu.Lock()
	connected, closed := c.connected, c.state == Closed
	c.mu.Unlock()
	if closed {
		return c.reason()
	}
	select {
	case <-connected:
		return nil
	case <-c.ended:
		return c.reason()
	case <-ctx.Done():
		return fmt.Errorf("client: wait for a connection: %w", ctx.Err())
	}
}

func (c *Client) reason() error {
	if err := c.Err(); err != nil {
		return err
	}
	return ErrClosed
}

// UserID is the user that the token stands for; empty before the first connection.
func (c *Client) UserID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.userID
}

// Position tells how far a conversation was handed over, or is about to be; false for one that the client does not know.
func (c *Client) Position(conversationID string) (seq uint64, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inbox.Position(conversationID)
}

// Stats counts what happened in the life of a client.
type Stats struct {
	// Connects is the number of connections, Reconnects those of them that came after another one.
	Connects, Reconnects uint64
	// Events is the number of events for OnEvent, Hidden that of hidden stretches.
	Events, Hidden uint64
	// RepeatsDropped is the number of events that came again.
	RepeatsDropped uint64
	// GapsSeen is how often events were found missing, PagesRead how many pages were read to get them.
	GapsSeen, PagesRead uint64
	// EventsPutOff is the number of events that found no room before the callbacks; they are read again later.
	EventsPutOff uint64
	// StraysDropped is the number of events of conversations that the gateway had not named yet.
	StraysDropped uint64
	// ChainBreaks is how often an event contradicted the chain, also when reading it again cured that.
	ChainBreaks uint64
	// Forks is how often the server's log of a conversation went back.
	Forks uint64
	// Retries is how often a request was sent again, Timeouts how often because there was no answer in time.
	Retries, Timeouts uint64
	// Acks is the number of acknowledgement frames.
	Acks uint64
}

// Stats tells what happened so far.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats, in := c.stats, c.inbox.Stats()
	stats.Events, stats.Hidden, stats.RepeatsDropped, stats.StraysDropped = in.Events, in.Hidden, in.RepeatsDropped, in.StraysDropped
	stats.GapsSeen, stats.PagesRead, stats.EventsPutOff, stats.ChainBreaks = in.GapsSeen, in.PagesRead, in.EventsPutOff, in.ChainBreaks
	stats.Forks, stats.Acks = in.Forks, in.Acks
	stats.Retries, stats.Timeouts = c.requests.Retries, c.requests.Timeouts
	return stats
}

// restore takes the positions of an earlier process.
func (c *Client) restore(positions map[string]Position) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, position := range positions {
		if !c.inbox.Restore(id, position.Seq, position.Hash) {
			c.cfg.Log.Warn("left out a saved position that no log can reach", "conversation_id", id, "seq", position.Seq)
		}
	}
}

// MarkRead says that the user has read a conversation up to seq. It goes out with the next acknowledgement, and again after a
// lost connection. A conversation that the client does not know is passed over.
func (c *Client) MarkRead(conversationID string, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox.MarkRead(conversationID, seq)
}

// handed notes that the program has been told of everything up to seq.
func (c *Client) handed(conv *inbox.Conversation, branch int, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox.Handed(conv, branch, seq)
}

// wake tells the writer that there is something to send. The lock is held.
func (c *Client) wake() {
	if c.session != nil {
		c.session.poke()
	}
}

// reconnectForked ends a connection on which conversations are not pushed from where the client is now. The lock is held.
func (c *Client) reconnectForked() {
	c.session.fail(errForked)
	c.session.poke()
}
