package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/listen"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

const (
	// maxStreams limits the concurrent calls of one connection; further calls wait at the client.
	maxStreams = 1000
	// pingAfter and pingTimeout detect a peer that disappeared without closing the connection. gRPC does not ping more
	// often than every 10 s.
	pingAfter, pingTimeout = 10 * time.Second, 5 * time.Second
	// gRPC's default keeps an unauthenticated peer for two minutes.
	defaultHandshakeTimeout = 5 * time.Second
	defaultStopTimeout      = 5 * time.Second
	defaultMaxInFlight      = 512
	// maxHeaderListSize limits the metadata of a call. gRPC's default is 16 MiB.
	maxHeaderListSize = 16 << 10
	// maxConnectionAge makes clients reconnect from time to time, without losing a call. They then resolve names again,
	// find new servers, and present their current certificate.
	maxConnectionAge = 10 * time.Minute
)

// ServerConfig configures a Server.
type ServerConfig struct {
	// Listen is host:port.
	Listen string `help:"Address of the gRPC server. If other machines can reach it, the TLS settings are required." default:"${rpc_listen=127.0.0.1:9000}"`
	// TLS authenticates callers and the server. Defaults to none: no encryption, and no authentication of callers.
	TLS certs.Config `embed:"" prefix:"tls."`
	// Plaintext allows the server to listen without TLS on an address that other machines can reach.
	Plaintext bool `help:"Serve other machines without TLS. Any caller that can reach the address may then read and write everything."`
	// MaxInFlight limits the calls of one method that are handled at the same time. Defaults to 512.
	MaxInFlight int `help:"Maximum number of calls of one method handled at once; further calls wait for a moment, then are refused." default:"512" range:"0..1000000"`
	// StopTimeout is how long calls in flight may continue when the server is stopped. Defaults to 5 s.
	StopTimeout time.Duration `help:"Time that calls in flight get to finish when the service stops." default:"5s" range:"0,1ms..10m"`
	// MaxSockets limits the open connections. Defaults to 0: an eighth of the descriptor limit, at most 512.
	MaxSockets int `help:"Most connections of the gRPC server; 0 for an eighth of the descriptor limit, at most 512." default:"0" range:"0..1000000"`
	// HandshakeTimeout limits the time from accepting a connection until its caller is authenticated. Defaults to 5 s.
	HandshakeTimeout time.Duration `help:"Time for the handshake of a connection." default:"5s" range:"0,10ms..24h"`
}

// Validate checks the settings without listening.
func (c ServerConfig) Validate() error {
	if err := settings.CheckRanges("rpc.", c); err != nil {
		return err
	}
	mutual, err := c.TLS.Mutual()
	if err == nil {
		err = c.TLS.Check()
	}
	if err != nil {
		return fmt.Errorf("rpc.tls: %w", err)
	}
	if !mutual && !c.Plaintext && listen.ReachOf(c.Listen) == listen.ReachOthers {
		return c.exposed()
	}
	return nil
}

// exposed returns the error for a server that other machines can reach but that would not authenticate them.
func (c ServerConfig) exposed() error {
	return fmt.Errorf("gRPC server: %s can be reached by other machines, which nothing would ask who they are: "+
		"set cert-file, key-file and ca-file under rpc.tls, or listen on 127.0.0.1, or say --rpc.plaintext where the network itself keeps strangers out", c.Listen)
}

// Server is a gRPC server with health, reflection, metrics, traces and recovery from panics.
type Server struct {
	grpc        *grpc.Server
	listener    net.Listener
	health      *health.Server
	observer    *observer
	guard       *guard
	handlers    *handlers
	polls       *polls
	stopTimeout time.Duration
}

// NewServer listens at once, so that a port in use is detected before the service starts. Run serves, and closes the
// listener.
func NewServer(cfg ServerConfig, tel *telemetry.Telemetry, extra ...grpc.ServerOption) (*Server, error) {
	bundle, err := loadMutual(cfg.TLS, tel)
	if err != nil {
		return nil, fmt.Errorf("gRPC server: %w", err)
	}
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = defaultHandshakeTimeout
	}
	sockets, err := listen.MaxSockets(listen.ForServices, cfg.MaxSockets)
	if err != nil {
		return nil, fmt.Errorf("gRPC server: rpc.%w", err)
	}
	listener, err := listen.Open(listen.Config{
		Name: "rpc", Address: cfg.Listen, MaxSockets: sockets,
		Timeout: cfg.HandshakeTimeout, Log: tel.Log, Registerer: tel.Registry,
	})
	if err != nil {
		return nil, fmt.Errorf("gRPC server (--rpc.listen): %w", err)
	}
	if bundle == nil && !cfg.Plaintext && !isLoopback(listener.Addr()) {
		_ = listener.Close() // the first error is returned
		return nil, cfg.exposed()
	}
	if cfg.StopTimeout <= 0 {
		cfg.StopTimeout = defaultStopTimeout
	}
	if cfg.MaxInFlight <= 0 {
		cfg.MaxInFlight = defaultMaxInFlight
	}
	observer, guard := newObserver(tel), newGuard(bundle != nil, tel)
	handlers, polls := &handlers{size: cfg.MaxInFlight, methods: map[string]*bulkhead{}, tel: tel}, newPolls()
	options := []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{}),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(cfg.HandshakeTimeout),
		grpc.MaxHeaderListSize(maxHeaderListSize),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: pingAfter, Timeout: pingTimeout, MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(observer.unary, guard.unary, handlers.unary, polls.unary),
		grpc.ChainStreamInterceptor(observer.stream, guard.stream),
		grpc.WaitForHandlers(true), // so that all handlers have ended when Run returns
	}
	if bundle != nil {
		options = append(options, grpc.Creds(mutual{bundle: bundle}))
	} else {
		options = append(options, grpc.Creds(trusting{insecure.NewCredentials()}))
	}
	if tel.Tracing() {
		options = append(options, grpc.StatsHandler(otelgrpc.NewServerHandler(traced(tel)...)))
	}
	s := &Server{
		grpc:        grpc.NewServer(append(options, extra...)...),
		listener:    listener,
		health:      health.NewServer(),
		observer:    observer,
		guard:       guard,
		handlers:    handlers,
		polls:       polls,
		stopTimeout: cfg.StopTimeout,
	}
	healthv1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

// RegisterService adds a service and reports it as healthy. It must not be called after Run.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.observer.add(desc)
	s.guard.add(desc)
	s.handlers.add(desc)
	s.grpc.RegisterService(desc, impl)
	s.health.SetServingStatus(desc.ServiceName, healthv1.HealthCheckResponse_SERVING)
}

// Allow adds the policy of services. It must not be called after Run.
func (s *Server) Allow(policy Policy) { maps.Copy(s.guard.policy, policy) }

// checkPolicy returns an error if the server has a method that no role may call.
func (s *Server) checkPolicy() error {
	for service, info := range s.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			if full := "/" + service + "/" + method.Name; len(s.guard.policy[full]) == 0 {
				return fmt.Errorf("gRPC server: %s has no policy, so nobody may call it", full)
			}
		}
	}
	return nil
}

// Close releases the address of a server that was not run. After Run it has no effect.
func (s *Server) Close() { _ = s.listener.Close() }

// Addr returns the address on which the server listens.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// SetServing sets the status that grpc.health.v1 reports, for the server as a whole and for each of its services.
func (s *Server) SetServing(serving bool) {
	if serving {
		s.health.Resume()
	} else {
		s.health.Shutdown()
	}
}

// Run serves until ctx ends. Then it reports itself as not serving, accepts no new calls and ends long polls. It lets
// other calls in flight finish within the stop timeout, cancels the remaining calls and waits for them. It may be called
// once.
func (s *Server) Run(ctx context.Context) error {
	defer s.polls.stop()
	if err := s.checkPolicy(); err != nil {
		_ = s.listener.Close() // the first error is returned
		return err
	}
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(s.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("gRPC server: %w", err)
	case <-ctx.Done():
	}
	s.SetServing(false)
	s.polls.stop()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	patience := time.NewTimer(s.stopTimeout)
	defer patience.Stop()
	select {
	case <-stopped:
	case <-patience.C:
		s.grpc.Stop()
		<-stopped
	}
	if err := <-served; err != nil && !errors.Is(err, grpc.ErrServerStopped) { // ErrServerStopped means that the server was stopped before it began
		return fmt.Errorf("gRPC server: %w", err)
	}
	return nil
}
