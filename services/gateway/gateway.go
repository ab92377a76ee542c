package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/gateway/admission"
	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Deps is what a gateway works with. All are required, except TracerProvider and Pages.
type Deps struct {
	NATS       *nats.Conn
	Partitions int
	History    historyv1.HistoryServiceClient
	Verifier   *auth.Verifier
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// TracerProvider makes spans; nil makes none.
	TracerProvider trace.TracerProvider
	// Pages serves what is not the WebSocket endpoint; nil serves nothing.
	Pages http.Handler
}

// Path is where clients connect.
const Path = "/v1/ws"

// Gateway terminates client connections. Make it with New, then Run it once.
type Gateway struct {
	cfg        Config
	nats       *nats.Conn
	partitions int
	history    historyv1.HistoryServiceClient
	verifier   *auth.Verifier
	log        *slog.Logger
	metrics    *metrics.Metrics
	registerer prometheus.Registerer
	trace      *flight.Tracer
	recorder   *flight.Recorder
	closed     *flight.ClosedLog
	id         string
	listener   net.Listener
	server     *http.Server
	submitter  atomic.Pointer[broker.Submitter] // from Run on
	hub        *hub
	acks       *acks
	lost       chan struct{} // something may have been lost on NATS
	unheard    chan struct{} // a notice of revoked tokens may have been lost on NATS
	buffers    sync.Pool
	turns      chan struct{} // bounds the memberships looked up at once
	// installationLevel is what level returns.
	installationLevel atomic.Uint32
	// listening is set once NATS has taken every subscription of Run. Before that the gateway is not ready.
	listening    atomic.Bool
	messageKinds []conversationv1.EventKind
	// writeBuffers is what gorilla/websocket takes a buffer from when it writes, which it does for the handshake only.
	writeBuffers sync.Pool

	// ctx is the life of everything that serves connections; it ends after the drain.
	ctx    context.Context //nolint:containedctx // connections are served by callbacks that bring no context of their own
	cancel context.CancelFunc

	// readers, writers and workers are the goroutines of connections; Run waits for all of them.
	readers, writers, workers sync.WaitGroup

	gate *admission.Gate

	mu       sync.Mutex
	accepted uint32 // connections so far
	conns    map[string]*conn
	users    map[string]*user
}

// New makes a gateway that listens already, so that its address is known, but takes no connection before Run.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("configuration of the gateway: %w", err)
	}
	g := &Gateway{
		cfg: cfg, nats: deps.NATS, partitions: deps.Partitions, history: deps.History, verifier: deps.Verifier,
		metrics: metrics.New(deps.Registerer), registerer: deps.Registerer, trace: flight.NewTracer(deps.TracerProvider, cfg.ClientTraceRate),
		recorder: flight.NewRecorder(cfg.ExplainEntries), closed: flight.NewClosedLog(cfg.ExplainEntries),
		id: "gw-" + uuid.NewString(), lost: make(chan struct{}, 1), unheard: make(chan struct{}, 1), turns: make(chan struct{}, maxTurns),
		messageKinds: conversation.MessageKinds(),
		conns:        map[string]*conn{}, users: map[string]*user{},
	}
	g.log = deps.Log.With("gateway", g.id)
	g.gate = newGate(g)
	g.hub = newHub(g)
	g.acks = &acks{gw: g, news: map[ackKey]*brokerv1.Ack{}}
	listener, err := listen(cfg, deps)
	if err != nil {
		return nil, err
	}
	g.listener = listener
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, g.accept)
	if deps.Pages != nil {
		mux.Handle("/", deps.Pages)
	}
	g.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
	}
	return g, nil
}

func newGate(g *Gateway) *admission.Gate {
	return admission.New(admission.Config{
		TrustedProxies: g.cfg.TrustedProxies, AllowedOrigins: g.cfg.AllowedOrigins,
		MaxConnections: g.cfg.MaxConnections, MaxConnectionsPerIP: g.cfg.MaxConnectionsPerIP,
		ConnectRatePerIP: g.cfg.ConnectRatePerIP, ConnectRate: g.cfg.ConnectRate, Metrics: g.metrics, Log: g.log,
	}, func() bool { return g.level() != 0 })
}

// takeBuffer gives a buffer for reading a message; the caller puts it back into buffers.
func (g *Gateway) takeBuffer() *[]byte {
	if buffer, ok := g.buffers.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, 0, 1024)
	return &buffer
}

// ID names this gateway: its inbox for outcomes, in logs and for operators. It is new with every start.
func (g *Gateway) ID() string { return g.id }

// Addr is the address that clients connect to.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// Checks are what readiness depends on: without NATS or the store a client would only connect to wait.
func (g *Gateway) Checks() map[string]telemetry.Check {
	return map[string]telemetry.Check{
		"gateway": func(context.Context) error {
			if !g.listening.Load() {
				return errors.New("not listening on NATS yet")
			}
			return nil
		},
		"nats": func(context.Context) error {
			if !g.nats.IsConnected() {
				return errors.New("not connected")
			}
			return nil
		},
		"history": func(ctx context.Context) error {
			if _, err := g.history.Heads(ctx, &historyv1.HeadsRequest{}); err != nil {
				return err
			}
			if g.level() == 0 {
				return errors.New("the installation's protocol level is not known yet")
			}
			return nil
		},
	}
}

// Run serves clients until ctx ends, then drains: no new connections, and those there are get told to go elsewhere, spread
// over time. It returns when everything the gateway started has ended.
func (g *Gateway) Run(ctx context.Context) error {
	g.ctx, g.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer g.cancel()
	defer func() { _ = g.listener.Close() }() // a second close changes nothing
	// Clients are refused until the store has answered this. It may be away when the gateway starts.
	switch err := g.agree(ctx); {
	case errors.Is(err, ErrMismatch):
		return err
	case err != nil && ctx.Err() == nil:
		g.log.Warn("clients are refused until the history service is there", "error", err)
	}
	submitter, err := broker.NewSubmitter(g.nats, g.partitions, broker.GatewayInbox(g.id), broker.SubmitterConfig{MaxPending: g.cfg.MaxCommands}, g.log)
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	defer submitter.Close()
	g.submitter.Store(submitter)
	g.registerGauges(g.registerer)

	for subject, take := range map[string]nats.MsgHandler{broker.JoinedSubject: g.onJoined, broker.RevokedSubject: g.onRevoked} {
		sub, err := g.nats.Subscribe(subject, take)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
		defer func() { _ = sub.Unsubscribe() }() // fails only when the connection is closed
	}
	if err := broker.Allowed(g.nats); err != nil {
		return err
	}
	g.listening.Store(true)
	status := g.nats.StatusChanged(nats.CONNECTED)
	defer g.nats.RemoveStatusListener(status)

	var background sync.WaitGroup
	for i := range g.hub.lanes {
		background.Go(func() { g.hub.work(g.ctx, &g.hub.lanes[i]) })
	}
	background.Go(func() { g.sweep(g.ctx) })
	background.Go(func() { g.compareHeads(g.ctx) })
	background.Go(func() { g.acks.run(g.ctx) })
	background.Go(func() { g.watchNATS(g.ctx, status) })
	background.Go(func() { g.watchRevocations(g.ctx) })
	background.Go(func() { g.answerOperators(g.ctx) })
	misfit := make(chan error, 1)
	background.Go(func() {
		if err := g.watchInstallation(g.ctx); err != nil {
			misfit <- err
		}
	})

	served := make(chan error, 1)
	go func() { served <- g.server.Serve(g.listener) }()
	g.log.Info("serving clients", "address", g.listener.Addr().String())
	select {
	case err = <-served:
	case err = <-misfit:
		g.log.Error("the gateway stops", "error", err)
	case <-ctx.Done():
		err = nil
	}
	g.drain()
	_ = g.server.Close() // the listener is gone; errors of closing idle HTTP connections mean nothing
	g.cancel()
	g.readers.Wait()
	background.Wait() // before workers: what runs in the background starts them
	g.workers.Wait()
	g.writers.Wait()
	if errors.Is(err, ErrMismatch) {
		return err
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

// answerOperators answers what is asked of all gateways over NATS, as Server does over gRPC.
func (g *Gateway) answerOperators(ctx context.Context) {
	instance := fleet.New(fleet.Config{NATS: g.nats, Service: "gateway", Instance: g.id, Log: g.log})
	gatewayv1.RegisterGatewayServiceServer(instance, g.Server())
	if err := instance.Run(ctx); err != nil {
		g.log.Error("operators' questions over NATS are not answered", "error", err)
	}
}

// watchNATS has everything compared with the store after the connection to NATS was lost: live messages were missed.
func (g *Gateway) watchNATS(ctx context.Context, status <-chan nats.Status) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-status:
			for _, signal := range []chan struct{}{g.lost, g.unheard} {
				select {
				case signal <- struct{}{}:
				default:
				}
			}
			for _, c := range g.connections() {
				if c.state.Load() == stateOpen {
					c.relist()
				}
			}
		}
	}
}

// enroll makes the connection one of its user's. It reports false when the user has too many.
func (g *Gateway) enroll(c *conn, claims auth.Claims) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.users[claims.User]
	if u == nil {
		burst := int(10 * g.cfg.CommandRatePerUser)
		u = &user{id: claims.User, commands: rate.NewLimiter(rate.Limit(g.cfg.CommandRatePerUser), burst), conns: map[*conn]struct{}{}}
		if g.trace.On() {
			u.traces = flight.Limiter(g.cfg.ClientTraceRatePerUser)
		}
		g.users[claims.User] = u
	}
	if len(u.conns) >= g.cfg.MaxConnectionsPerUser {
		return false
	}
	u.conns[c] = struct{}{}
	c.user, c.issued = u, issuedMs(claims)
	return true
}

// forget takes a connection that is gone out of all tables.
func (g *Gateway) forget(c *conn, code errcode.CloseCode) {
	g.mu.Lock()
	delete(g.conns, c.id)
	userID := ""
	if u := c.user; u != nil {
		userID = u.id
		delete(u.conns, c)
		g.purgeUser(u)
	}
	count := len(g.conns)
	g.mu.Unlock()
	g.gate.Release(c.remote)
	g.metrics.Connections.Set(float64(count))
	g.metrics.Closed(code)
	g.log.Debug("a connection ended", "connection", c.id, "user", userID, "code", code.String(), "lasted", time.Since(c.since).Round(time.Millisecond).String())
}

// purgeUser forgets a user without connections, once their allowance is full again: or connecting anew would get around the
// rate. Callers hold mu.
func (g *Gateway) purgeUser(u *user) {
	if len(u.conns) == 0 && u.commands.Tokens() >= float64(u.commands.Burst()) {
		delete(g.users, u.id)
	}
}

// purge forgets the users and addresses whose allowance has filled up since they went.
func (g *Gateway) purge() {
	g.gate.Purge()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, u := range g.users {
		g.purgeUser(u)
	}
}

func (g *Gateway) connections() []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	conns := make([]*conn, 0, len(g.conns))
	for _, c := range g.conns {
		conns = append(conns, c)
	}
	return conns
}

func (g *Gateway) onJoined(msg *nats.Msg) {
	var joined brokerv1.Joined
	if err := proto.Unmarshal(msg.Data, &joined); err != nil {
		g.log.Error("a joined message cannot be decoded", "error", err)
		return
	}
	for _, userID := range joined.GetUserIds() {
		g.joined(userID, joined.GetConversationId())
	}
}

// joined has the connections of a user listen to a conversation, if there are any here.
func (g *Gateway) joined(userID, conversationID string) {
	g.mu.Lock()
	u := g.users[userID]
	var conns []*conn
	if u != nil {
		for c := range u.conns {
			conns = append(conns, c)
		}
	}
	g.mu.Unlock()
	for _, c := range conns {
		c.join(conversationID)
	}
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
