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

// Config is what a client is made of. URL, DeviceID and Token are required; the zero value of everything else is its default.
type Config struct {
	URL      string      `help:"WebSocket address of a gateway, ws:// or wss://."`
	DeviceID string      `help:"This installation of the client: 1 to 64 characters A-Z a-z 0-9 _ -."`
	Codec    frame.Codec `help:"Encoding of frames: proto or json." default:"proto"`
	Software string      `help:"Name and version of the program, for operators." default:"runnel-go"`

	ConnectTimeout time.Duration `help:"Longest that one attempt to connect may take." default:"10s"`
	RequestTimeout time.Duration `help:"Send a request again when it has no answer after this long." default:"10s"`
	AckDelay       time.Duration `help:"Collect acknowledgements for this long; negative sends each at once." default:"200ms"`
	MaxOutbox      int           `help:"Most commands that wait for their outcome." default:"1000"`
	MaxEvents      int           `help:"Most events that wait for the callback; what comes after them is read again later." default:"1024"`
	Backoff        Backoff       `embed:"" prefix:"backoff-"`
	SkipVerify     bool          `help:"Do not check the hash chain of events."`
	Accepted       bool          `help:"Ask to be told when the broker holds a command, before its outcome."`

	// Token gets a token for each connection and each refresh of one. Its context ends with Close and after ConnectTimeout.
	Token func(ctx context.Context) (string, error) `kong:"-"`
	// Start says where conversations begin that this client knows nothing of yet. Defaults to START_HEAD. A conversation that
	// the user joins while the client runs begins with the event that made them a member, whatever Start says.
	Start clientv1.Start `kong:"-"`
	// Cursors keeps positions beyond the life of the process. Defaults to none. Only the newest position is kept, so when the
	// server's log went back while the process did not run, OnForked may name 0 and all events come again.
	Cursors Cursors `kong:"-"`
	// TLS says whom wss:// connections trust and who they are, for a gateway with a certificate of a private authority. Defaults
	// to the system's authorities. Not used by a Dial of the program's own.
	TLS *tls.Config `kong:"-"`
	// TracerProvider makes a span of each command and of each event that belongs to a recorded trace; see TraceID. Its processors
	// must not block: they are called while the client is locked. Defaults to none, which costs nothing.
	TracerProvider trace.TracerProvider `kong:"-"`
	// Log gets what an operator of the program may want to know. Defaults to nowhere.
	Log *slog.Logger `kong:"-"`
	// Dial opens connections. Defaults to WebSocket.
	Dial DialFunc `kong:"-"`

	// OnEvent gets each event, with what is known of its content. An event is acknowledged when OnEvent returns. The context ends
	// with Close; it has the trace of the event, if there is one, for TraceID and Traceparent.
	OnEvent func(ctx context.Context, event Event) `kong:"-"`
	// OnReceipt gets the newest receipt of a conversation; older ones may be passed over. Without it none are asked for.
	OnReceipt func(receipt *conversationv1.Receipt) `kong:"-"`
	// OnState gets each state that the client comes into.
	OnState func(state State) `kong:"-"`
	// OnHidden gets stretches that stand for events the user may not see, in order with the events around them.
	OnHidden func(hidden *clientv1.Hidden) `kong:"-"`
	// OnAttached gets each conversation before its first event, once.
	OnAttached func(conversation *clientv1.Conversation) `kong:"-"`
	// OnDetached gets a conversation after its last event, when the user is no longer a member. Last is 0 when the server
	// does not know the conversation.
	OnDetached func(detached *clientv1.Detached) `kong:"-"`
	// OnAccepted is told that the broker holds the command of a ticket. Only with Accepted.
	OnAccepted func(ticket *Ticket) `kong:"-"`
	// OnForked is called when the server's log of a conversation went back: it was restored from a backup or lost events. The
	// program drops what it has of the conversation above fork.To; what the server has there now follows.
	OnForked func(fork Fork) `kong:"-"`
	// OnBroken gets a *chain.Broken when a conversation's log contradicts itself, also when read a second time, although the
	// server did not go back. Nothing more of that conversation is handed over.
	OnBroken func(err error) `kong:"-"`
}

// Backoff is how long the client waits between attempts: a random time between nothing and a bound that doubles from Min to Max
// (full jitter), so that clients that lost their gateway together do not come back together.
type Backoff struct {
	Min time.Duration `help:"Bound of the first wait." default:"200ms"`
	Max time.Duration `help:"Bound that waits grow to." default:"20s"`
	// Random gives numbers from 0 up to 1. Defaults to math/rand/v2.
	Random func() float64 `kong:"-"`
}

// wait is how long to wait after so many failures in a row.
func (b Backoff) wait(failures int) time.Duration {
	bound := b.Max
	// 2^20 times any sensible Min is beyond any sensible Max.
	if failures < 20 {
		bound = min(bound, b.Min<<failures)
	}
	return time.Duration(b.Random() * float64(bound))
}

// Position is how far a conversation was handed over.
type Position struct {
	// Seq of the last event.
	Seq uint64
	// Hash of that event, so that the chain can be checked across restarts; nil when it is not known.
	Hash []byte
}

// Cursors keeps positions. Its methods are not called concurrently. An error of Load fails Start; one of Save is logged, and the
// next Save of that conversation makes up for it.
type Cursors interface {
	// Load gives the positions of all conversations by id. A position with a seq of 1<<62 or more is left out, with a warning:
	// that conversation begins as one that the client does not know.
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
		cfg.Codec = frame.JSON // the same on the wire; SkipVerify decides whether bytes are asked for
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
