package standalone

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/reclaim"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/admin"
	"github.com/runnelhq/runnel/services/delivery"
	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/history"
)

// Config contains all settings. Its sections have the same names as in the separate services.
type Config struct {
	DataDir      string        `help:"Directory for all data." default:"./runnel-data" type:"path"`
	SyncInterval time.Duration `help:"How often the embedded NATS server syncs accepted commands to disk. Committed events are always synced at once." default:"2m" range:"1ms..24h"`

	NATS      broker.Config         `embed:"" prefix:"nats."`
	Gateway   gateway.Config        `embed:"" prefix:"gateway."`
	Delivery  delivery.Config       `embed:"" prefix:"delivery."`
	History   history.Config        `embed:"" prefix:"history."`
	Auth      auth.Config           `embed:"" prefix:"auth."`
	RPC       rpc.ServerConfig      `embed:"" prefix:"rpc."`
	Admin     telemetry.AdminConfig `embed:"" prefix:"admin."`
	Telemetry telemetry.Config      `embed:"" prefix:"telemetry."`
}

// Validate checks all settings before any file is opened or created.
func (c Config) Validate() error {
	if err := settings.CheckRanges("", c); err != nil {
		return err
	}
	for _, part := range []interface{ Validate() error }{
		c.NATS, c.Gateway, c.Delivery, c.History, c.Auth, c.RPC, c.Admin, c.Telemetry,
	} {
		if err := part.Validate(); err != nil {
			return err
		}
	}
	return nil
}

// Standalone contains all services in one process. Create it with New, then call Run once.
type Standalone struct {
	tel      *telemetry.Telemetry
	lock     *os.File // the lock of the data directory
	nats     *embeddedNATS
	nc       *nats.Conn
	store    history.Store
	history  *history.Server
	verifier *auth.Verifier
	gateway  *gateway.Gateway
	delivery *delivery.Service
	rpc      *rpc.Server
	admin    *telemetry.Admin
	// partitions is the number of partitions; this process works on all of them.
	partitions int
	status     *statuspage.Page
	secret     []byte  // the development secret; nil if authentication is configured
	signIn     *signIn // nil if authentication is configured
}

// New opens the store, starts the embedded NATS server and creates the services. If it fails, everything that was started
// is stopped.
func New(ctx context.Context, cfg Config, tel *telemetry.Telemetry) (_ *Standalone, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	s := &Standalone{tel: tel, partitions: cfg.NATS.Partitions}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if cfg.Auth.HasKeys() { // before the first file is created, because this reads the key files
		if s.verifier, err = auth.New(cfg.Auth, auth.Options{Log: tel.Log}); err != nil {
			return nil, fmt.Errorf("set up authentication: %w", err)
		}
	}
	if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if s.lock, err = lockDir(cfg.DataDir); err != nil {
		return nil, err
	}
	if s.verifier == nil {
		if s.secret, err = DevSecret(cfg.DataDir); err != nil {
			return nil, err
		}
		cfg.Auth.HMACSecret = string(s.secret)
		s.signIn = newSignIn(s.secret)
		if s.verifier, err = auth.New(cfg.Auth, auth.Options{Log: tel.Log, Development: true}); err != nil {
			return nil, fmt.Errorf("set up authentication: %w", err)
		}
	}
	if s.nats, err = newEmbeddedNATS(func() (*server.Server, error) { return startNATS(cfg, tel.Log) }, tel.Log); err != nil {
		return nil, err
	}
	if s.nc, err = broker.Connect(cfg.NATS, "runnel", tel.Log, tel.Registry, nats.InProcessServer(s.nats)); err != nil {
		return nil, err
	}
	cfg.History = historyIn(cfg.DataDir, cfg.History)
	// Only commands go through NATS, because they must not be lost.
	inner, err := bus.NewInProcess(tel.Log, tel.Registry)
	if err != nil {
		return nil, err
	}
	opened, err := history.Open(ctx, cfg.History, cfg.NATS.Partitions, tel.Log)
	if err != nil {
		return nil, fmt.Errorf("open the history: %w", err)
	}
	s.store = opened // set only now: close must not close a store that was not opened
	if isWithin(cfg.DataDir, cfg.History.Database) {
		if err := releaseLeases(ctx, s.store); err != nil {
			return nil, err
		}
	}
	// The services call each other through their generated clients, without a socket.
	inproc := rpc.NewInproc(tel)
	s.history = history.New(cfg.History, s.store, tel.Log, tel.Registry)
	historyv1.RegisterHistoryServiceServer(inproc, s.history)
	store := historyv1.NewHistoryServiceClient(inproc)
	// All parts run in this process, so every part knows the level.
	if _, err := delivery.RaiseLevel(ctx, store, tel.Log); err != nil {
		return nil, err
	}
	if s.delivery, err = delivery.New(cfg.Delivery, delivery.Deps{
		NATS: s.nc, Bus: inner, Broker: cfg.NATS, History: store, Log: tel.Log, Registerer: tel.Registry, TracerProvider: tel.TracerProvider,
	}); err != nil {
		return nil, err
	}
	site, err := pages(s.signIn)
	if err != nil {
		return nil, fmt.Errorf("prepare the chat page: %w", err)
	}
	if s.gateway, err = gateway.New(cfg.Gateway, gateway.Deps{
		NATS: s.nc, Bus: inner, Partitions: cfg.NATS.Partitions, History: store, Verifier: s.verifier, Log: tel.Log,
		Registerer: tel.Registry, TracerProvider: tel.TracerProvider, Pages: site,
	}); err != nil {
		return nil, err
	}
	if s.rpc, err = rpc.NewServer(cfg.RPC, tel); err != nil {
		return nil, err
	}
	s.history.Register(s.rpc)
	s.delivery.Register(s.rpc)
	s.gateway.Server().Register(s.rpc)
	operators := admin.New(admin.Deps{
		History: store, Fleet: s.delivery.Fleet(), Submit: s.delivery.Do, Bus: inner, Partitions: cfg.NATS.Partitions,
		Log: tel.Log.With("worker", s.delivery.Name()),
	})
	operators.Register(s.rpc)
	s.admin, err = telemetry.NewAdmin(cfg.Admin, tel, s.checks())
	if err != nil {
		return nil, err
	}
	s.status = statuspage.New(statuspage.Config{
		Title: "Runnel", Version: buildinfo.Read().Version(), Health: s.admin.Health, Gatherer: tel.Registry, Log: tel.Log, Stages: stages(), Charts: charts(),
		Tables: []statuspage.Source{s.gateway.Server().ConnectionTable(), operators.PartitionTable(), operators.DeadLetterTable()},
	})
	s.admin.Handle("/", s.status)
	s.admin.Handle("/debug/", s.gateway.Debug())
	return s, nil
}

// checks returns the readiness checks of all parts. They include the store, so that its outage makes the process unready.
func (s *Standalone) checks() map[string]telemetry.Check {
	checks := s.gateway.Checks()
	maps.Copy(checks, s.delivery.Checks())
	of := s.history.Checks()
	checks["history"], checks["ledger"] = of["database"], of["ledger"]
	checks["streams"] = s.nats.check
	return checks
}

// Addr returns the address to which clients and browsers connect.
func (s *Standalone) Addr() net.Addr { return s.gateway.Addr() }

// RPCAddr returns the gRPC address for services and `runnel admin`.
func (s *Standalone) RPCAddr() string { return s.rpc.Addr() }

// AdminAddr returns the address of the admin server; empty if it is off.
func (s *Standalone) AdminAddr() string { return s.admin.Addr() }

// Development reports whether no authentication is configured. Then the server gives tokens of any user to clients that
// know its SignInCode.
func (s *Standalone) Development() bool { return s.signIn != nil }

// SignInCode returns the code of the development sign-in, valid until the process ends; empty if the sign-in is off.
// Anyone who knows the code can sign in as any user.
func (s *Standalone) SignInCode() string {
	if s.signIn == nil {
		return ""
	}
	return s.signIn.code
}

// readyInterval is how often WaitReady runs the checks. All checks but the last one, of the database, only read memory.
const readyInterval = 10 * time.Millisecond

// WaitReady returns when the server serves clients and commits their commands. If ctx ends first, the error states which
// check fails. Call it while Run runs.
func (s *Standalone) WaitReady(ctx context.Context) error {
	ticker := time.NewTicker(readyInterval)
	defer ticker.Stop()
	for {
		err := s.checkReady(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-ticker.C:
		}
	}
}

func (s *Standalone) checkReady(ctx context.Context) error {
	for _, check := range s.gateway.Checks() {
		if err := check(ctx); err != nil {
			return err
		}
	}
	if err := s.delivery.Check(ctx); err != nil {
		return err
	}
	if running := s.delivery.Running(); running < s.partitions {
		return fmt.Errorf("%d of %d partitions are being worked on; after a crash the leases of the process before must expire first", running, s.partitions)
	}
	return s.store.Ping(ctx)
}

// Run serves until ctx ends. Then the gateway drains, delivery finishes its work, and the other parts stop.
func (s *Standalone) Run(ctx context.Context) error {
	defer s.close()
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBehind()
	group, behind := errgroup.WithContext(behind)
	group.Go(func() error { return s.delivery.Run(behind) })
	group.Go(func() error { return s.nats.guard(behind) })
	group.Go(func() error { return s.rpc.Run(behind) })
	group.Go(func() error { return s.admin.Run(behind) })
	group.Go(func() error { return s.status.Run(behind) })
	group.Go(func() error { return reclaim.New(s.tel.Log).Run(behind) })
	front, stopFront := context.WithCancel(ctx)
	defer stopFront()
	context.AfterFunc(behind, stopFront) // if a part fails, all other parts are stopped
	context.AfterFunc(ctx, func() { s.admin.SetReady(false) })
	err := s.gateway.Run(front)
	stopBehind()
	if failed := group.Wait(); failed != nil && !errors.Is(failed, context.Canceled) {
		err = errors.Join(err, failed)
	}
	return err
}

func (s *Standalone) close() {
	// After Run, the listeners are already closed.
	if s.gateway != nil {
		s.gateway.Close()
	}
	if s.rpc != nil {
		s.rpc.Close()
	}
	if s.admin != nil {
		s.admin.Close()
	}
	if s.nc != nil {
		s.nc.Close()
	}
	if s.history != nil {
		if err := s.history.Close(); err != nil {
			s.tel.Log.Error("the erase ledger did not close cleanly", "error", err)
		}
	}
	if s.store != nil {
		if err := s.store.Close(); err != nil {
			s.tel.Log.Error("the store did not close cleanly", "error", err)
		}
	}
	if s.nats != nil {
		s.nats.close()
	}
	if s.verifier != nil {
		s.verifier.Close()
	}
	if s.lock != nil {
		_ = s.lock.Close() // releases the lock of the data directory
	}
}

// DevSecret reads the secret that signs development tokens from the data directory. It creates the secret if there is
// none.
func DevSecret(dataDir string) ([]byte, error) {
	path := filepath.Join(dataDir, "dev-secret")
	data, err := os.ReadFile(path)
	if err == nil {
		return []byte(strings.TrimSpace(string(data))), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the development secret: %w", err)
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	secret := []byte(hex.EncodeToString(random))
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the data directory: %w", err)
	}
	if err := os.WriteFile(path, append(secret, '\n'), 0o600); err != nil {
		return nil, fmt.Errorf("write the development secret: %w", err)
	}
	return secret, nil
}
