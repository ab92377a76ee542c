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

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/httpserver"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/listen"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/gateway/admission"
	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/link/websocket"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/operator"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/session"
)

// Deps are the dependencies of a gateway. All are required, except TracerProvider and Pages.
type Deps struct {
	// NATS is the connection over which commands are published; the caller closes it after Run has returned.
	NATS *nats.Conn
	// Bus carries outcomes, live events, acknowledgements and notices. Defaults to NATS.
	Bus        bus.Bus
	Partitions int
	History    historyv1.HistoryServiceClient
	Verifier   *auth.Verifier
	Log        *slog.Logger
	Registerer prometheus.Registerer
	// TracerProvider creates spans; nil disables tracing.
	TracerProvider trace.TracerProvider
	// Pages handles requests that are not for the WebSocket endpoint. If it is nil, such requests are answered with
	// status 404.
	Pages http.Handler
	// Listener accepts the clients' connections; the gateway limits and closes it. Defaults to a listener on
	// Config.Listen. Tests set this field to choose socket options.
	Listener net.Listener
}

// Path is the path of the WebSocket endpoint.
const Path = "/v1/ws"

// Gateway terminates client connections. Create it with New, then call Run once.
type Gateway struct {
	cfg          Config
	id           string
	nats         *nats.Conn
	bus          bus.Bus
	probe        *broker.Probe
	verifier     *auth.Verifier
	log          *slog.Logger
	registerer   prometheus.Registerer
	metrics      *metrics.Metrics
	installation *installation
	gate         *admission.Gate
	outboxes     *outbox.Shared
	websockets   *websocket.Transport
	rooms        *room.Hub
	acks         *session.Acks
	sessions     *session.Sessions
	operator     *operator.Server
	listener     net.Listener
	server       *http.Server

	submitter atomic.Pointer[broker.Submitter] // set by Run
	// listening is set once NATS has accepted every subscription of Run. Before that the gateway is not ready.
	listening atomic.Bool
	lost      chan struct{} // signalled when messages on NATS may have been lost

	// ctx is the lifetime of everything that serves connections; it ends after the drain.
	ctx    context.Context //nolint:containedctx // connections are served by callbacks that bring no context of their own
	cancel context.CancelFunc
}

// New creates a gateway. It listens at once, so that its address is known, but accepts no connection before Run.
func New(cfg Config, deps Deps) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("configuration of the gateway: %w", err)
	}
	sockets, err := listen.MaxSockets(listen.ForClients, cfg.MaxSockets)
	if err != nil {
		return nil, fmt.Errorf("configuration of the gateway: gateway.%w", err)
	}
	cfg.MaxConnections = cfg.connections(sockets)
	if deps.Bus == nil {
		deps.Bus = bus.OverNATS{Conn: deps.NATS}
	}
	g := &Gateway{
		cfg: cfg, id: "gw-" + uuid.NewString(), nats: deps.NATS, bus: deps.Bus, probe: broker.NewProbe(deps.NATS, nil), verifier: deps.Verifier,
		registerer: deps.Registerer, metrics: metrics.New(deps.Registerer), lost: make(chan struct{}, 1),
	}
	g.log = deps.Log.With("gateway", g.id)
	g.ctx, g.cancel = context.WithCancel(context.Background())
	g.compose(deps)
	listener, err := openListener(cfg, deps)
	if err != nil {
		return nil, err
	}
	g.listener = listener
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, g.acceptWebSocket)
	if deps.Pages != nil {
		mux.Handle("/", deps.Pages)
	}
	g.server = httpserver.New(mux, httpserver.Config{Log: g.log, RequestTimeout: cfg.RequestTimeout, IdleTimeout: 30 * time.Second})
	return g, nil
}

// compose creates the parts, lowest layer first.
func (g *Gateway) compose(deps Deps) {
	cfg := g.cfg
	recorder, closed := flight.NewRecorder(cfg.ExplainEntries), flight.NewClosedLog(cfg.ExplainEntries)
	tracer := flight.NewTracer(deps.TracerProvider, cfg.ClientTraceRate)
	g.installation = &installation{
		history: deps.History, partitions: deps.Partitions, timeout: cfg.HistoryTimeout, metrics: g.metrics, log: g.log,
	}
	g.gate = admission.New(admission.Config{
		TrustedProxies: cfg.TrustedProxies, AllowedOrigins: cfg.AllowedOrigins,
		MaxConnections: cfg.MaxConnections, MaxConnectionsPerIP: cfg.MaxConnectionsPerIP, MaxConnectionsPerNetwork: cfg.MaxConnectionsPerNetwork,
		ConnectRatePerIP: cfg.ConnectRatePerIP, ConnectRatePerNetwork: cfg.ConnectRatePerNetwork, ConnectRate: cfg.ConnectRate,
		Metrics: g.metrics, Log: g.log,
	}, func() bool { return g.installation.level() != 0 })
	g.outboxes = &outbox.Shared{
		MaxBytes: cfg.SendQueueBytes, WriteTimeout: cfg.WriteTimeout, Buffers: &outbox.Buffers{}, Metrics: g.metrics, Recorder: recorder,
	}
	g.websockets = websocket.New(websocket.Config{
		MaxMessageBytes: cfg.MaxFrameBytes, MaxFirstBytes: protocol.MaxConnectBytes, OriginAllowed: g.gate.OriginAllowed,
		Strangers: websocket.NewBudget(cfg.MaxUnauthenticatedBytes), Outboxes: g.outboxes, Metrics: g.metrics,
	})
	g.rooms = room.NewHub(g.ctx, room.Config{
		Log: deps.History, Bus: liveBus{deps.Bus}, Logger: g.log, Metrics: g.metrics, Recorder: recorder, Tracer: tracer,
		Joined: func(userID ids.User, conversationID ids.Conversation, seq ids.Seq, committed time.Time) {
			g.sessions.JoinedAt(userID, conversationID, seq, committed)
		},
		SendQueueBytes: cfg.SendQueueBytes, RecentBytes: cfg.RecentBytes, AckTimeout: cfg.AckTimeout, AckTries: cfg.AckTries,
		HistoryTimeout: cfg.HistoryTimeout,
	})
	g.acks = session.NewAcks(deps.Partitions, func(partition ids.Partition, data []byte) error {
		return g.bus.PublishMsg(&nats.Msg{Subject: broker.AckSubject(partition), Data: data})
	}, g.log)
	g.sessions = session.New(g.ctx, session.Deps{
		Config: session.Config{
			MaxFrameBytes: cfg.MaxFrameBytes, MaxConnectionsPerUser: cfg.MaxConnectionsPerUser, FrameRate: cfg.FrameRate,
			CommandRatePerUser: cfg.CommandRatePerUser, ReadRatePerUser: cfg.ReadRatePerUser, AddRatePerUser: cfg.AddRatePerUser, ClientTraceRatePerUser: cfg.ClientTraceRatePerUser, ConnectTimeout: cfg.ConnectTimeout,
			Heartbeat: cfg.Heartbeat, TokenWarning: cfg.TokenWarning, HistoryTimeout: cfg.HistoryTimeout, RevocationInterval: cfg.RevocationInterval,
		},
		Log: g.log, Metrics: g.metrics, Recorder: recorder, Tracer: tracer, Closed: closed, Verifier: deps.Verifier, History: deps.History,
		Rooms: g.rooms, Acks: g.acks, Level: g.installation.level,
		Requests: requests.New(requests.Config{
			History: deps.History, Submit: func(s broker.Submission) error { return g.submitter.Load().Submit(s) },
			Level: g.installation.level, Partitions: deps.Partitions, Metrics: g.metrics, Tracer: tracer,
			Adding: requests.Adding{Policy: requests.Policy(cfg.Adding), MaxConversations: cfg.MaxConversationsPerUser},
		}),
	})
	g.operator = operator.New(operator.Deps{
		Gateway: g.id, Sessions: g.sessions, Rooms: g.rooms, Recorder: recorder, Closed: closed, Metrics: g.metrics,
		MaxConnections: cfg.MaxConnections, Draining: g.gate.Closed, PendingCommands: g.pendingCommands, Level: g.installation.level,
	})
}

// acceptWebSocket accepts one WebSocket connection, or answers with the reason for the refusal.
func (g *Gateway) acceptWebSocket(w http.ResponseWriter, r *http.Request) {
	g.serve(w, r, func(remote string, number uint32) acceptedLink {
		if l := g.websockets.Accept(w, r, remote, number); l != nil {
			return l
		}
		return nil
	})
}

// acceptedLink is a link that is either served or ended at once.
type acceptedLink interface {
	link.Link
	End() errcode.CloseCode
}

// serve accepts one connection of any transport, or answers with the reason for the refusal. accept creates the link of
// the connection; if it answers the request itself, it returns nil.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, accept func(remote string, number uint32) acceptedLink) {
	remote := g.gate.Remote(r)
	slot, refusal := g.gate.Admit(r, remote)
	if refusal != nil {
		refusal.Answer(w)
		return
	}
	number := g.sessions.NextNumber()
	l := accept(remote, number)
	if l == nil {
		slot.Release()
		return
	}
	s := g.sessions.Begin(l, number)
	if s == nil { // the gateway is being stopped
		l.End()
		slot.Release()
		return
	}
	ctx := r.Context()
	s.OnAuthenticated(func() bool { return listen.Authenticated(ctx) && slot.Authenticate() })
	l.Serve(&admitted{s, slot})
}

// admitted is a session that the gate counts until its link has ended.
type admitted struct {
	*session.Session

	slot *admission.Slot
}

// Ended implements link.Receiver.
func (a *admitted) Ended(code errcode.CloseCode) {
	a.Session.Ended(code)
	a.slot.Release()
}

// ID identifies this gateway: in its inbox for outcomes, in logs and for operators. Each start has a new ID.
func (g *Gateway) ID() string { return g.id }

// Addr is the address that clients connect to.
func (g *Gateway) Addr() net.Addr { return g.listener.Addr() }

// Close releases the listen address of a gateway that is not run. After Run it has no effect.
func (g *Gateway) Close() {
	g.cancel()
	_ = g.listener.Close()
}

// Server is the gRPC service for operators.
func (g *Gateway) Server() *operator.Server { return g.operator }

// Debug returns the internal state of the gateway, for the admin port.
func (g *Gateway) Debug() http.Handler { return g.operator.Debug() }

// Overview returns the identity and the figures of the gateway.
func (g *Gateway) Overview() operator.Overview { return g.operator.Overview() }

func (g *Gateway) pendingCommands() int {
	if submitter := g.submitter.Load(); submitter != nil {
		return submitter.Pending()
	}
	return 0
}

// Checks are the conditions for readiness: NATS stores commands, tokens can be verified, and the store has answered once. Later
// outages of the store are reported as degraded.
func (g *Gateway) Checks() map[string]telemetry.Check {
	return map[string]telemetry.Check{
		"gateway": func(context.Context) error {
			if !g.listening.Load() {
				return errors.New("not listening on NATS yet")
			}
			return nil
		},
		"nats":    g.probe.Check,
		"history": g.installation.check,
		"auth":    g.verifier.Ready,
	}
}

// Run serves clients until ctx ends, then drains: it accepts no new connections, and asks the connected clients, spread over
// time, to reconnect elsewhere. It returns when everything that the gateway started has ended.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.cancel()
	defer func() { _ = g.listener.Close() }() // closing it twice is harmless
	// Clients are refused until the store has answered this call. The store may be unavailable when the gateway starts.
	switch err := g.installation.agree(ctx); {
	case errors.Is(err, ErrMismatch):
		return err
	case err != nil && ctx.Err() == nil:
		g.log.Warn("clients are refused until the history service is available", "error", err)
	}
	submitter, err := broker.NewSubmitter(g.nats, g.bus, g.installation.partitions, broker.GatewayInbox(g.id), broker.SubmitterConfig{MaxPending: g.cfg.MaxCommands}, g.log)
	if err != nil {
		return fmt.Errorf("start the gateway: %w", err)
	}
	defer submitter.Close()
	g.submitter.Store(submitter)
	g.operator.RegisterGauges(g.registerer)
	unsubscribe, err := notices{g.sessions, g.log}.subscribe(g.bus)
	defer unsubscribe()
	if err != nil {
		return err
	}
	if err := broker.Allowed(g.nats); err != nil {
		return err
	}
	g.listening.Store(true)
	status := g.nats.StatusChanged(nats.CONNECTED)
	defer g.nats.RemoveStatusListener(status)

	var background sync.WaitGroup
	background.Go(func() { g.rooms.Run(g.ctx) })
	background.Go(func() { g.sweep(g.ctx) })
	background.Go(func() { g.compareHeads(g.ctx) })
	background.Go(func() { g.acks.Run(g.ctx) })
	background.Go(func() { onReconnect(g.ctx, status, g.compareAll) })
	background.Go(func() { g.sessions.WatchRevocations(g.ctx) })
	background.Go(func() { g.sessions.WatchMemberships(g.ctx) })
	background.Go(func() { g.answerOperators(g.ctx) })
	misfit := make(chan error, 1)
	background.Go(func() {
		if err := g.installation.watch(g.ctx); err != nil {
			misfit <- err
		}
	})

	served := make(chan error, 1)
	go func() { served <- g.server.Serve(g.listener) }()
	g.log.Info("serving clients", "address", g.listener.Addr().String())
	select {
	case err = <-served:
	case err = <-misfit:
		g.log.Error("the gateway is stopping", "error", err)
	case <-ctx.Done():
		err = nil
	}
	g.gate.Close()
	_ = g.listener.Close() // the server closes it again, which is harmless
	drainPlan{rate: g.cfg.DrainRate, window: g.cfg.Drain}.drain(g.sessions.Close(), g.metrics.DrainLeft, g.log)
	_ = g.server.Close() // the listener is closed already; errors of closing idle HTTP connections do not matter
	g.cancel()
	g.websockets.WaitForReaders()
	background.Wait() // before waiting for workers: background goroutines start workers
	g.sessions.Wait()
	g.rooms.Wait()
	g.outboxes.Writers.Wait()
	if errors.Is(err, ErrMismatch) {
		return err
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve clients: %w", err)
	}
	return nil
}

// answerOperators answers queries that are sent to all gateways over NATS, as Server does over gRPC.
func (g *Gateway) answerOperators(ctx context.Context) {
	instance := fleet.New(fleet.Config{NATS: g.nats, Service: "gateway", Instance: g.id, Log: g.log})
	gatewayv1.RegisterGatewayServiceServer(instance, g.operator)
	if err := instance.Run(ctx); err != nil {
		g.log.Error("operators' queries over NATS cannot be answered", "error", err)
	}
}

// compareAll starts a comparison of all state with the store. It is called when live messages or notices may have been
// lost.
func (g *Gateway) compareAll() {
	select {
	case g.lost <- struct{}{}:
	default:
	}
	g.sessions.Relist()
}

// sweepInterval is the precision of heartbeats, timeouts and retries.
const sweepInterval = time.Second

// sweep does the periodic work until ctx ends.
func (g *Gateway) sweep(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			g.sessions.Sweep(now)
			g.rooms.Sweep(now)
			g.gate.Purge()
		}
	}
}

// compareHeads compares heads with the store once per heartbeat interval, and at once when live messages may have been
// lost.
func (g *Gateway) compareHeads(ctx context.Context) {
	ticker := time.NewTicker(g.cfg.Heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-g.lost:
		}
		g.rooms.Compare(ctx, g.cfg.Heartbeat)
	}
}
