// Package process runs a service with the parts that all services share: settings, telemetry, the gRPC server, the admin
// server, signals, and an orderly shutdown. A main function assembles the service:
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
// It does not depend on any service. Each main makes the other parts that its service needs (a broker, a store, a verifier of tokens).
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
	"github.com/runnelhq/runnel/pkg/memlimit"
	"github.com/runnelhq/runnel/pkg/reclaim"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Config contains the settings that every service has. The embedding struct sets the default addresses.
type Config struct {
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc."`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin."`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

// flushTime is the time limit for exporting the last spans.
const flushTime = 3 * time.Second

// Process is a process during assembly and while it runs.
type Process struct {
	// Telemetry, Server and Admin exist from the start. The assembly registers services and adds pages.
	Telemetry *telemetry.Telemetry
	Server    *rpc.Server
	Admin     *telemetry.Admin

	cfg    Config
	checks map[string]telemetry.Check // shared with the admin server, which reads it when it runs
	runs   []func(context.Context) error
	ends   []func() error
}

// Main runs a service until the process receives a stop signal, and exits. The exit status is 0 after an orderly end.
// Otherwise it is 1, and the reason is printed on standard error.
func Main(name string, cfg Config, assemble func(context.Context, *Process) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := Run(ctx, name, cfg, os.Stderr, assemble)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Run is Main without signals and exit. It writes the log to log. It returns after ctx has ended, or a part has failed, and
// everything that was started has stopped.
//
//	assemble ──▶ run ──ctx ends──▶ unready ──▶ what the service runs ends ──▶ gRPC and admin server end ──▶ AtEnd
func Run(ctx context.Context, name string, cfg Config, log io.Writer, assemble func(context.Context, *Process) error) (err error) {
	p := &Process{cfg: cfg, checks: map[string]telemetry.Check{}}
	defer func() { err = errors.Join(err, p.end()) }()
	if p.Telemetry, err = telemetry.Start(ctx, name, cfg.Telemetry, log); err != nil {
		return fmt.Errorf("start telemetry: %w", err)
	}
	memlimit.Apply(p.Telemetry.Log)
	begun := time.Now()
	p.AtEnd(func() error { // the last function to be called
		if err == nil {
			p.Telemetry.Log.Info("stopped", "version", buildinfo.Read().Version(), "ran", time.Since(begun).Round(time.Second).String())
		}
		flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
		defer cancel()
		return p.Telemetry.Shutdown(flush)
	})
	// Listen here, so that a port in use is detected first. If the assembly fails, the process ends and so does the
	// listener.
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

// run keeps both servers running until the service has ended, so that a draining service can still be inspected.
func (p *Process) run(ctx context.Context) error {
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	servers, behind := errgroup.WithContext(behind)
	servers.Go(func() error { return p.Server.Run(behind) })
	servers.Go(func() error { return p.Admin.Run(behind) })
	servers.Go(func() error { return reclaim.New(p.Telemetry.Log).Run(behind) })

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(behind, stop) // if a server fails, everything stops
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

// Go adds a function that runs as long as the process. It must return soon after its context has ended. If a function
// returns an error, all functions are stopped.
func (p *Process) Go(run func(context.Context) error) { p.runs = append(p.runs, run) }

// AtEnd adds a function that is called after everything else has ended. The function added last is called first.
func (p *Process) AtEnd(end func() error) { p.ends = append(p.ends, end) }

// Check adds a condition for readiness.
func (p *Process) Check(name string, check telemetry.Check) { p.checks[name] = check }

// StatusPage serves a status page at the root of the admin server. The page shows the process's readiness, metrics and
// log. After the service's own tables it shows the circuit breakers of the process's calls.
func (p *Process) StatusPage(cfg statuspage.Config) {
	cfg.Health, cfg.Gatherer, cfg.Log = p.Admin.Health, p.Telemetry.Registry, p.Telemetry.Log
	cfg.Version = buildinfo.Read().Version()
	cfg.Tables = append(cfg.Tables, rpc.BreakerTable(p.Telemetry.Registry))
	page := statuspage.New(cfg)
	p.Admin.Handle("/", page)
	p.Go(page.Run)
}

// Dial makes a connection to another service. It presents the certificate with which the process also serves. The process
// closes the connection at its end.
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
