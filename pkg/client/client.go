package client

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/request"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
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
	// listed says that every conversation the user was in at the first connect is known, so that others are new ones.
	listed bool
	stats  Stats

	// What is asked of the gateway; see request and Ticket.
	requests *request.Queue
	outbox   map[string][]*Ticket
	tickets  int
	refusals refusals
	record   record

	// What the gateway says of conversations; see stream.
	conversations map[string]*stream
	behind        []*stream
	fills         int
	catchingUp    map[*stream]catchUp
	unacked       []*stream
	unackedEvents int
	checker       *checker
	// Conversations of which history is asked whether the log went back: those that wait, and how many are asked about now.
	suspects []*stream
	searches int
}

// New makes a client that is not started.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, ended: make(chan struct{}), connected: make(chan struct{}),
		outbox:        map[string][]*Ticket{},
		conversations: map[string]*stream{}, catchingUp: map[*stream]catchUp{},
	}
	c.checker = c.newChecker()
	c.requests = request.NewQueue(request.Config{
		Codec: cfg.Codec, Timeout: cfg.RequestTimeout, Backoff: cfg.Backoff.wait, Refused: refusalOf,
		Wake: func() {
			if c.session != nil {
				c.session.poke()
			}
		},
	})
	if cfg.TracerProvider != nil {
		c.tracer = cfg.TracerProvider.Tracer(scopeName)
	}
	c.callbacks = newCallbacks(&c.cfg, c.tracer, c.handed)
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
	c.err = err
	reason := err
	if reason == nil {
		reason = ErrClosed
	}
	c.requests.FailAll(reason)
	for id, tickets := range c.outbox {
		for _, ticket := range tickets {
			ticket.resolve(nil, reason)
		}
		delete(c.outbox, id)
	}
	c.tickets = 0
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
	conv := c.conversations[conversationID]
	if conv == nil {
		return 0, false
	}
	return conv.last, true
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
	stats := c.stats
	stats.Retries, stats.Timeouts = c.requests.Retries, c.requests.Timeouts
	return stats
}

func (c *Client) startingPoint() clientv1.Start {
	// Whoever was away must not miss the beginning of what they joined meanwhile.
	if c.stats.Connects > 0 && c.listed && c.cfg.Start == clientv1.Start_START_HEAD {
		return clientv1.Start_START_FIRST
	}
	return c.cfg.Start
}
