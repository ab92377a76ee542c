package client

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/link"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Config configures a client. URL, DeviceID and Token are required; all other fields have defaults.
type Config struct {
	URL      string      `help:"WebSocket address of a gateway, ws:// or wss://."`
	DeviceID string      `help:"This installation of the client: 1 to 64 characters A-Z a-z 0-9 _ -."`
	Codec    frame.Codec `help:"Encoding of frames: proto or json." default:"proto"`
	Software string      `help:"Name and version of the program, for operators." default:"runnel-go"`

	ConnectTimeout time.Duration `help:"Longest that one attempt to connect may take." default:"10s" range:"0,1ms..10m"`
	RequestTimeout time.Duration `help:"Send a request again when it has no answer after this long." default:"10s" range:"0,1ms..10m"`
	AckDelay       time.Duration `help:"Collect acknowledgements for this long; negative sends each at once." default:"200ms" range:"-1m..1m"`
	MaxOutbox      int           `help:"Most commands that wait for their outcome." default:"1000" range:"0..1000000"`
	MaxEvents      int           `help:"Most events that wait for the callback; what comes after them is read again later." default:"1024" range:"0..1000000"`
	Backoff        Backoff       `embed:"" prefix:"backoff-"`
	SkipVerify     bool          `help:"Do not check the hash chain of events."`
	Accepted       bool          `help:"Request a notice when the broker has accepted a command, before its outcome."`

	// Token returns a token for each connection, and for each refresh of a connection's token. Its context ends with
	// Close and after ConnectTimeout.
	Token func(ctx context.Context) (string, error) `kong:"-"`
	// Start is the starting point of conversations that this client does not know yet. Defaults to START_HEAD. A
	// conversation that the user joins while the client runs always begins with the event that made the user a member.
	Start clientv1.Start `kong:"-"`
	// Cursors stores positions beyond the lifetime of the process. Defaults to none. Only the newest position is stored.
	// Therefore, if the server's log went back while the process did not run, OnForked may receive 0, and all events are
	// delivered again.
	Cursors Cursors `kong:"-"`
	// TLS is the configuration of wss:// connections, for a gateway with a certificate of a private authority or for a client
	// certificate. Defaults to the system's authorities. Not used if the program sets Dial.
	TLS *tls.Config `kong:"-"`
	// TracerProvider creates a span for each command and for each event that belongs to a recorded trace; see TraceID. Its
	// processors must not block: they are called while the client is locked. Defaults to none, which costs nothing.
	TracerProvider trace.TracerProvider `kong:"-"`
	// Log receives log lines for the operator of the program. Defaults to discarding.
	Log *slog.Logger `kong:"-"`
	// Dial opens connections. Defaults to WebSocket.
	Dial DialFunc `kong:"-"`

	// OnEvent is called with each event and what is known about its content. An event is acknowledged when OnEvent returns. The
	// context ends with Close; it carries the trace of the event, if there is one, for TraceID and Traceparent.
	OnEvent func(ctx context.Context, event Event) `kong:"-"`
	// OnReceipt is called with the newest receipt of a conversation; older receipts may be skipped. If it is nil, the
	// client requests no receipts.
	OnReceipt func(receipt *conversationv1.Receipt) `kong:"-"`
	// OnState is called with each new state of the client.
	OnState func(state State) `kong:"-"`
	// OnHidden is called with stretches of events that the user may not see, in order with the events around them.
	OnHidden func(hidden *clientv1.Hidden) `kong:"-"`
	// OnAttached is called once with each conversation, before its first event.
	OnAttached func(conversation *clientv1.Conversation) `kong:"-"`
	// OnDetached is called when the user is no longer a member of a conversation, after the last event of the
	// conversation. Last is 0 if the server does not know the conversation.
	OnDetached func(detached *clientv1.Detached) `kong:"-"`
	// OnAccepted is called when the broker holds the command of a ticket. It is called only if Accepted is set.
	OnAccepted func(ticket *Ticket) `kong:"-"`
	// OnForked is called when the server's log of a conversation went back: it was restored from a backup or lost events.
	// The program must drop the events of the conversation above fork.To; the server's new events after fork.To follow.
	OnForked func(fork Fork) `kong:"-"`
	// OnBroken is called with a *chain.Broken when a conversation's log contradicts itself, even when read a second time,
	// although the server's log did not go back. No further events of that conversation are delivered.
	OnBroken func(err error) `kong:"-"`
}

// Backoff is how long the client waits between attempts: a random time between zero and a limit that doubles from Min to
// Max (full jitter). The randomness prevents clients that lost their gateway together from reconnecting together.
type Backoff struct {
	Min time.Duration `help:"Bound of the first wait." default:"200ms" range:"0..1h"`
	Max time.Duration `help:"Bound that waits grow to." default:"20s" range:"0..24h"`
	// Random returns numbers from 0 up to 1. Defaults to math/rand/v2.
	Random func() float64 `kong:"-"`
}

// wait returns how long to wait after this many consecutive failures.
func (b Backoff) wait(failures int) time.Duration {
	bound := b.Max
	// 2^20 times any sensible Min is beyond any sensible Max.
	if failures < 20 {
		bound = min(bound, b.Min<<failures)
	}
	return time.Duration(b.Random() * float64(bound))
}

// Position is the newest event of a conversation that was passed to the program.
type Position struct {
	// Seq is the seq of the event.
	Seq uint64
	// Hash is the hash of the event, so that the chain can be checked across restarts; nil if it is not known.
	Hash []byte
}

// Cursors stores positions. Its methods are not called concurrently. An error of Load makes Start fail. An error of Save
// is only logged; the next Save of the same conversation makes up for it.
type Cursors interface {
	// Load returns the positions of all conversations by id. A position with a seq of 1<<62 or more is ignored, with a
	// warning: the client then treats the conversation as unknown.
	Load(ctx context.Context) (map[string]Position, error)
	// Save is called after OnEvent has returned, before the event is acknowledged, and when a conversation begins.
	Save(ctx context.Context, conversationID string, position Position) error
	// Forget is called when the user is no longer a member.
	Forget(ctx context.Context, conversationID string) error
}

func (cfg Config) complete() (Config, error) {
	if u, err := url.Parse(cfg.URL); err != nil || (u.Scheme != "ws" && u.Scheme != "wss") || u.Host == "" {
		return cfg, errors.New("client: URL must be a ws:// or wss:// address")
	}
	if !conversation.ValidUser(cfg.DeviceID) {
		return cfg, errors.New("client: DeviceID " + conversation.UserRule)
	}
	if cfg.Token == nil {
		return cfg, errors.New("client: Token must be set")
	}
	if cfg.Codec == frame.JSONWithBytes {
		cfg.Codec = frame.JSON // same form on the wire; SkipVerify decides whether body bytes are requested
	}
	setDefault(&cfg.Software, "runnel-go")
	setDefault(&cfg.ConnectTimeout, 10*time.Second)
	setDefault(&cfg.RequestTimeout, 10*time.Second)
	setDefault(&cfg.AckDelay, 200*time.Millisecond)
	setDefault(&cfg.MaxOutbox, 1000)
	setDefault(&cfg.MaxEvents, 1024)
	setDefault(&cfg.Backoff.Min, 200*time.Millisecond)
	setDefault(&cfg.Backoff.Max, 20*time.Second)
	if cfg.Backoff.Random == nil {
		cfg.Backoff.Random = rand.Float64
	}
	if cfg.Start == clientv1.Start_START_UNSPECIFIED {
		cfg.Start = clientv1.Start_START_HEAD
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dial == nil {
		dial := link.DialWebSocket(cfg.TLS)
		cfg.Dial = func(ctx context.Context, url string, header http.Header) (Conn, error) { return dial(ctx, url, header) }
	}
	return cfg, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
