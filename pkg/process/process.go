// Package process is the shell around a service: settings that all services share, telemetry, the gRPC server, the admin
// server, signals, and an end in order. A main says what is inside:
//
//	process.Main("runnel-history", cfg.Config, func(ctx context.Context, p *process.Process) error {
//		store, err := history.Open(ctx, …)
//		if err != nil {
//			return err
//		}
//		p.AtEnd(store.Close)
//		history.New(…).Register(p.Server)
//		p.Check("database", store.Ping)
//		return nil
//	})
//
// It knows no service. What a service needs besides (a broker, a store, a verifier of tokens) is made in its own main.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Config contains the settings that every service has. The defaults of the addresses come from the embedding struct.
type Config struct {
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc."`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin."`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

// flushTime is the time limit for exporting the last spans.
const flushTime = 3 * time.Second

// Process is a process that is being assembled, and then runs.
type Process struct {
	// Telemetry, Server and Admin exist from the start. Services are registered, and pages added, during assembly.
	Telemetry *telemetry.Telemetry
	Server    *rpc.Server
	Admin     *telemetry.Admin

	cfg    Config
	checks map[string]telemetry.Check // the admin server has it, and reads it when it runs
	runs   []func(context.Context) error
	ends   []func() error
}

// Main runs a service until the process receives a stop signal, and exits: with 0 if all went well, else with 1 and the
// reason on standard error.
func Main(name string, cfg Config, assemble func(context.Context, *Process) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Run(ctx, name, cfg, os.Stderr, assemble)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Run is Main without signals and exit; the log goes to log. It returns when ctx has ended, or a part has failed, and
// everything that was started has stopped.
//
//	assemble ──▶ run ──ctx ends──▶ unready ──▶ what the service runs ends ──▶ gRPC and admin server end ──▶ AtEnd
func Run(ctx context.Context, name string, cfg Config, log io.Writer, assemble func(context.Context, *Process) error) (err error) {
	p := &Process{cfg: cfg, checks: map[string]telemetry.Check{}}
	defer func() { err = errors.Join(err, p.end()) }()
	if p.Telemetry, err = telemetry.Start(ctx, name, cfg.Telemetry, log); err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	begun := time.Now()
	p.AtEnd(func() error { // the last
		if err == nil {
			p.Telemetry.Log.Info("stopped", "version", buildinfo.Read().Version(), "ran", time.Since(begun).Round(time.Second).String())
		}
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		return p.Telemetry.Shutdown(flush)
	})
	// Both listen from here on, so that a used port is detected first; a service that cannot be assembled ends with the
	// process.
	if p.Server, err = rpc.NewServer(cfg.RPC, p.Telemetry); err != nil {
		return err
	}
	if p.Admin, err = telemetry.NewAdmin(cfg.Admin, p.Telemetry, p.checks); err != nil {
		return err
	}
	if err := assemble(ctx, p); err != nil {
		return err
	}
	return p.run(ctx)
}

// run runs the two servers until after the service has ended: a draining service can still be inspected.
func (p *Process) run(ctx context.Context) error {
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	servers, behind := errgroup.WithContext(behind)
	servers.Go(func() error { return p.Server.Run(behind) })
	servers.Go(func() error { return p.Admin.Run(behind) })

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(behind, stop) // if one server fails, everything is stopped
	service, ctx := errgroup.WithContext(ctx)
	for _, run := range p.runs {
		service.Go(func() error { return run(ctx) })
	}
	service.Go(func() error {
		<-ctx.Done()
		p.Admin.SetReady(false)
		return nil
	})
	err := service.Wait()
	stopBehind()
	return errors.Join(err, servers.Wait())
}

// Go adds a function that runs as long as the process; it must return soon after its context has ended. When one fails, all
// are stopped.
func (p *Process) Go(run func(context.Context) error) { p.runs = append(p.runs, run) }

// AtEnd adds a function that is called when nothing runs any more, last added first.
func (p *Process) AtEnd(end func() error) { p.ends = append(p.ends, end) }

// Check adds a condition of readiness.
func (p *Process) Check(name string, check telemetry.Check) { p.checks[name] = check }

// StatusPage puts the page at the root of the admin server. The page gets the process's readiness, metrics and log, and shows the
// circuit breakers of its calls after the tables of the service.
func (p *Process) StatusPage(cfg statuspage.Config) {
	cfg.Health, cfg.Gatherer, cfg.Log = p.Admin.Health, p.Telemetry.Registry, p.Telemetry.Log
	cfg.Version = buildinfo.Read().Version()
	cfg.Tables = append(cfg.Tables, rpc.BreakerTable(p.Telemetry.Registry))
	page := statuspage.New(cfg)
	p.Admin.Handle("/", page)
	p.Go(page.Run)
}

// Dial makes a connection to another service, with the certificate that the process serves with. It is closed at the end.
func (p *Process) Dial(address string, service rpc.Role) (grpc.ClientConnInterface, error) {
	conn, err := rpc.Dial(address, rpc.ClientConfig{Service: service, TLS: p.cfg.RPC.TLS}, p.Telemetry)
	if err != nil {
		return nil, err
	}
	p.AtEnd(conn.Close)
	return conn, nil
}

func (p *Process) end() error {
	var failed []error
	for _, end := range slices.Backward(p.ends) {
		failed = append(failed, end())
	}
	return errors.Join(failed...)
}
