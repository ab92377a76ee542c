package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/singleflight"

	"github.com/runnelhq/runnel/pkg/httpserver"
	"github.com/runnelhq/runnel/pkg/listen"
	"github.com/runnelhq/runnel/pkg/settings"
)

const (
	// adminStopTimeout is how long requests in flight may continue when the admin server is stopped.
	adminStopTimeout = 2 * time.Second

	defaultRequestTimeout = 15 * time.Second
	// idleFactor times the request timeout is the maximum time between two requests on a connection: two minutes by
	// default, so that scrapes every minute use one connection.
	idleFactor = 8
	// maxProfile is the maximum duration of a profile or trace.
	maxProfile = 10 * time.Minute
)

// AdminConfig configures the admin server of a service.
type AdminConfig struct {
	// Listen is host:port; empty means no admin server. If the address is not loopback, a token is required.
	Listen string `help:"Address of the admin server (metrics, health, status page); empty for none." default:"${admin_listen=127.0.0.1:9090}"`
	// Token is the token that callers must send, as a bearer token or as the password of any user. It has at least 16
	// characters. Only the paths for probes (/livez, /readyz, /healthz) do not require it. It must be set unless Listen
	// is a loopback address. If it is set, it is required on loopback too.
	Token string `help:"Token that callers of the admin server must send, at least 16 characters. Required on a non-loopback address." secret:""`
	// TokenFile is a file with the token, to use instead of Token.
	TokenFile string `help:"File that holds the admin token. Read again when it changes." secretfile:"" placeholder:"FILE"`
	// Pprof serves Go's profiles under /debug/pprof/. Defaults to true, because a service in trouble should not have to
	// be restarted to be profiled. Callers need the token, or access to this machine.
	Pprof bool `help:"Serve Go profiles under /debug/pprof/." default:"true" negatable:""`
	// MaxSockets limits the open connections. Defaults to 0: a sixteenth of the descriptor limit, at most 128.
	MaxSockets int `help:"Most connections of the admin server; 0 for a sixteenth of the descriptor limit, at most 128." default:"0" range:"0..100000"`
	// RequestTimeout limits the time to send a request and the time to read its answer. Defaults to 15 s.
	RequestTimeout time.Duration `help:"Time for a client to send a request to the admin server, and to read the answer. Profiles have the time that they take in addition." default:"15s" range:"0,100ms..24h"`
}

// Validate checks the settings without listening.
func (c AdminConfig) Validate() error {
	if err := settings.CheckRanges("admin.", c); err != nil {
		return err
	}
	if err := c.checkToken(); err != nil {
		return err
	}
	if c.Token == "" && c.TokenFile == "" && c.Listen != "" && listen.ReachOf(c.Listen) == listen.ReachOthers {
		return c.exposed()
	}
	return nil
}

// exposed returns the error for a server that other machines can reach without a token.
func (c AdminConfig) exposed() error {
	return fmt.Errorf("admin server: %s can be reached from other machines, and there is no token; set RUNNEL_ADMIN_TOKEN or RUNNEL_ADMIN_TOKEN_FILE, or listen on 127.0.0.1", c.Listen)
}

// Admin is the HTTP server for operators:
//
//	/metrics           metrics in Prometheus or OpenMetrics form
//	/livez, /healthz   200 as long as the process answers; independent of all checks
//	/readyz            200 if the service can do its work, otherwise 503, with the reasons for callers with the token;
//	                   the metrics runnel_ready and runnel_degraded contain the same;
//	                   200 with "degraded" if it works without one of its dependencies (see Degraded)
//	/debug/pprof/      Go's profiles
//
// and the handlers that the service adds with Handle. Only /livez, /healthz and /readyz answer without the token.
// Requests that a browser makes for another site are refused, see sameSite.
type Admin struct {
	probes   *http.ServeMux // answers the probes without a token; passes all other requests to mux, through the guard
	mux      *http.ServeMux
	routes   []string // the patterns of probes and mux
	guard    guard
	server   *http.Server
	listener net.Listener // nil if there is no admin server
	checks   map[string]Check
	gauges   healthGauges
	checking singleflight.Group
	checked  time.Time     // when the last run of the checks ended; guarded like results
	results  []CheckResult // results of the last run
	draining atomic.Bool

	mu      sync.Mutex
	running context.Context  //nolint:containedctx // the lifetime of the server, for work that several requests share
	states  map[string]state // by name of the check
	busy    map[string]bool  // the checks that are running
}

// NewAdmin listens at once, so that a port in use is detected before the service starts. Run serves, and closes the
// listener. checks are the conditions for readiness, by name.
func NewAdmin(cfg AdminConfig, t *Telemetry, checks map[string]Check) (*Admin, error) {
	guard, err := newGuard(cfg, t.Log)
	if err != nil {
		return nil, err
	}
	a := &Admin{
		mux: http.NewServeMux(), guard: guard, checks: checks, gauges: newHealthGauges(t.Registry),
		running: context.Background(), states: map[string]state{}, busy: map[string]bool{},
	}
	a.Handle("GET /metrics", promhttp.HandlerFor(t.gatherer(), promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorLog: scrapeLog{t.Log}, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	}))
	a.probes = http.NewServeMux()
	for pattern, handler := range map[string]http.HandlerFunc{"GET /livez": live, "GET /healthz": live, "GET /readyz": a.ready} {
		a.probes.HandleFunc(pattern, handler)
		a.routes = append(a.routes, pattern)
	}
	if cfg.Pprof {
		a.Handle("/debug/pprof/", http.HandlerFunc(pprof.Index))
		a.Handle("/debug/pprof/cmdline", http.HandlerFunc(pprof.Cmdline))
		a.Handle("/debug/pprof/profile", http.HandlerFunc(pprof.Profile))
		a.Handle("/debug/pprof/symbol", http.HandlerFunc(pprof.Symbol))
		a.Handle("/debug/pprof/trace", http.HandlerFunc(pprof.Trace))
	}
	if cfg.Listen == "" {
		return a, nil
	}
	if cfg.RequestTimeout <= 0 {
		cfg.RequestTimeout = defaultRequestTimeout
	}
	sockets, err := listen.MaxSockets(listen.ForOperators, cfg.MaxSockets)
	if err != nil {
		return nil, fmt.Errorf("admin server: admin.%w", err)
	}
	// Without a token no client is ever authenticated, so the time limit must allow the longest answer.
	timeout := maxProfile + 2*cfg.RequestTimeout
	if guard.token != nil {
		timeout = 2 * cfg.RequestTimeout
	}
	listener, err := listen.Open(listen.Config{
		Name: "admin", Address: cfg.Listen, MaxSockets: sockets, Timeout: timeout, Log: t.Log, Registerer: t.Registry,
	})
	if err != nil {
		return nil, fmt.Errorf("admin server (--admin.listen): %w", err)
	}
	if guard.token == nil && !isLoopback(listener.Addr()) {
		_ = listener.Close()
		return nil, cfg.exposed()
	}
	a.listener = listener
	a.probes.Handle("/", a.guard.before(a.mux))
	a.server = httpserver.New(sameSite(a.probes), httpserver.Config{
		Log: t.Log, RequestTimeout: cfg.RequestTimeout, IdleTimeout: idleFactor * cfg.RequestTimeout,
		AnswerTimeout: func(r *http.Request) time.Duration { return cfg.RequestTimeout + profiled(r) },
	})
	return a, nil
}

// scrapeLog receives the errors of scrapes. Errors of sending the answer are logged at debug level, because clients
// decide how many there are.
type scrapeLog struct{ log *slog.Logger }

// Println implements promhttp.Logger.
func (l scrapeLog) Println(v ...any) {
	level := slog.LevelWarn
	for _, part := range v {
		if err, ok := part.(error); ok {
			if _, ok := errors.AsType[*net.OpError](err); ok {
				level = slog.LevelDebug
			}
		}
	}
	l.log.Log(context.Background(), level, "a scrape of the metrics failed", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// profiled returns the duration of the requested profile; 0 for other requests.
func profiled(r *http.Request) time.Duration {
	if !strings.HasPrefix(r.URL.Path, "/debug/pprof/") {
		return 0
	}
	const defaultSeconds = 30 // the default of net/http/pprof
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil || seconds <= 0 {
		seconds = defaultSeconds
	}
	return time.Duration(min(seconds, maxProfile.Seconds()) * float64(time.Second))
}

// Handle adds a handler for a pattern of http.ServeMux. It must not be called after Run.
func (a *Admin) Handle(pattern string, handler http.Handler) {
	a.mux.Handle(pattern, handler)
	a.routes = append(a.routes, pattern)
}

// Routes returns all patterns that the server answers, for tests that try each of them.
func (a *Admin) Routes() []string { return slices.Sorted(slices.Values(a.routes)) }

// Addr returns the address on which the server listens; empty if there is no admin server.
func (a *Admin) Addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// Close releases the address of a server that was not run. After Run it has no effect.
func (a *Admin) Close() {
	if a.listener != nil {
		_ = a.listener.Close()
	}
}

// SetReady with false makes the service unready, whatever the checks return. It is the first step of a drain, so that no new
// traffic is sent to this instance. After SetReady(true) the checks decide again, as at the start.
func (a *Admin) SetReady(ready bool) { a.draining.Store(!ready) }

// Run serves until ctx ends. It returns when the last request has ended or was cut off. It is called once.
func (a *Admin) Run(ctx context.Context) error {
	if a.listener == nil {
		<-ctx.Done()
		return nil
	}
	a.mu.Lock()
	a.running = ctx // the status page may run the checks from now on
	a.mu.Unlock()
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	watching.Go(func() { a.watch(ctx) })
	a.server.BaseContext = func(net.Listener) context.Context { return ctx }
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("admin server: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminStopTimeout)
	defer cancel()
	if a.server.Shutdown(stop) != nil {
		_ = a.server.Close()
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("admin server: %w", err)
	}
	return nil
}

func live(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ok\n"))
}
