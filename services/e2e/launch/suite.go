package launch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
)

// Store selects a database.
type Store string

// The databases.
const (
	SQLite     Store = "sqlite"
	PostgreSQL Store = "postgres"
)

const (
	// secretVariable is the environment variable from which gateways read the secret that signs tokens.
	secretVariable = "RUNNEL_AUTH_HMAC_SECRET"
	// historyVariable is the environment variable with the address of the history service, for gateways and workers.
	historyVariable = "RUNNEL_HISTORY_ADDRESS"
	// clientPath is the path of the gateways' client endpoint.
	clientPath = "/v1/ws"
)

// Options describe a suite.
type Options struct {
	// Dir is the directory for data and logs. It is created if needed, and never removed.
	Dir string
	// Binaries must contain the programs to start. Start needs Gateway, Delivery, History and NATSServer.
	Binaries Binaries
	// Store defaults to SQLite.
	Store Store
	// NATSNodes is 1, or 3 with replicated streams. Defaults to 1.
	NATSNodes int
	// Gateways and Deliveries default to 2, Histories to 1. More than one history service requires PostgreSQL. Gateway
	// and worker number i use history service number i modulo Histories.
	Gateways, Deliveries, Histories int
	// Flags are additional flags by program name. They do not apply to NATS servers, which have a configuration file.
	Flags map[string][]string
	// Environment contains additional environment variables of all services, as NAME=VALUE.
	Environment []string
	// NATSSync is the sync_interval of the NATS servers: "always", or a duration. Empty means the server's default of two
	// minutes.
	NATSSync string
	// LazyDatabase makes PostgreSQL acknowledge writes without syncing them (fsync off).
	LazyDatabase bool
	// DataDir returns the data directory of a part: "nats-0", "nats-1" …, "postgres", or "sqlite". Defaults to a
	// directory in Dir with the part's name.
	DataDir func(part string) string
	// Secret signs the users' tokens. Defaults to a random one. Suites with the same secret accept the same tokens.
	Secret string
	// Proxied puts a proxy on every connection between two parts, and in front of the gateways: see Suite.Links.
	Proxied bool
	// Crashed is called if a service's process ends by itself. May be nil.
	Crashed func(name string, err error)
}

func (o Options) withDefaults() (Options, error) {
	if o.Store == "" {
		o.Store = SQLite
	}
	for field, value := range map[*int]int{&o.NATSNodes: 1, &o.Gateways: 2, &o.Deliveries: 2, &o.Histories: 1} {
		if *field == 0 {
			*field = value
		}
	}
	if o.Secret == "" {
		o.Secret = newSecret()
	}
	if o.Store == SQLite && o.Histories > 1 {
		return o, errors.New("launch: an SQLite file has one history service")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("launch: find the directory: %w", err)
	}
	o.Dir = dir
	if o.DataDir == nil {
		o.DataDir = func(part string) string { return filepath.Join(o.Dir, part) }
	}
	// The user that runs PostgreSQL needs access.
	return o, os.MkdirAll(dir, 0o755)
}

// Suite is a set of services that work together.
type Suite struct {
	// NATS, Histories, Deliveries and Gateways are the parts started by Start. Postgres is nil with SQLite.
	NATS, Histories, Deliveries, Gateways []*Process
	Postgres                              *Postgres
	// Standalone is the only part started by StartStandalone.
	Standalone *Process

	// URLs are the addresses of the gateways for clients: ws://…/v1/ws. With Options.Proxied they lead through a proxy.
	// Direct are the addresses without proxies.
	URLs, Direct []string
	// Links are the proxies between the parts.
	Links []*Link
	// Database is the location of the database: "sqlite:PATH" or "postgres://…".
	Database string

	secret  string
	natsURL []string // addresses of the servers themselves
}

// Start starts all parts as separate processes and waits until all are ready. The caller stops the suite with Stop.
func Start(ctx context.Context, options Options) (*Suite, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Suite{secret: options.Secret}
	b := builder{Options: options, suite: s}
	for _, step := range []func(context.Context) error{b.startStore, b.startNATS, b.startHistories, b.startDeliveries, b.startGateways} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
	}
	return s, nil
}

// StartStandalone starts a standalone server as one process, and waits until it is ready.
func StartStandalone(ctx context.Context, options Options) (*Suite, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Suite{secret: options.Secret}
	b := builder{Options: options, suite: s}
	listen, err := reserve.Address()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(options.Dir, "standalone")
	s.Standalone, err = b.service(ctx, Standalone, "standalone", map[string]string{"data-dir": data, "gateway.listen": listen}, secretVariable+"="+s.secret)
	s.URLs = []string{"ws://" + listen + clientPath}
	s.Database = "sqlite:" + filepath.Join(data, "history.db")
	return s, err
}

// Token makes a token for a user, valid for a day.
func (s *Suite) Token(user string) (string, error) {
	return auth.Mint([]byte(s.secret), ids.User(user), 24*time.Hour, time.Now(), "", "")
}

// Parts lists all parts in the order in which they were started.
func (s *Suite) Parts() []Part {
	var parts []Part
	if s.Postgres != nil {
		parts = append(parts, s.Postgres)
	}
	for _, processes := range [][]*Process{s.NATS, s.Histories, s.Deliveries, s.Gateways} {
		for _, p := range processes {
			parts = append(parts, p)
		}
	}
	if s.Standalone != nil {
		parts = append(parts, s.Standalone)
	}
	return parts
}

// Stop stops all parts in order, the gateways first.
func (s *Suite) Stop() error {
	var failed []error
	parts := s.Parts()
	slices.Reverse(parts)
	for _, part := range parts {
		failed = append(failed, part.Stop())
	}
	s.closeLinks()
	return errors.Join(failed...)
}

// Kill kills all parts at once.
func (s *Suite) Kill() {
	for _, part := range s.Parts() {
		part.Kill()
	}
	s.closeLinks()
}

// builder starts the parts of a suite one after another.
type builder struct {
	Options
	suite *Suite
	// histories are the addresses of the started history services.
	histories []string
}

func (b *builder) startStore(ctx context.Context) (err error) {
	if b.Store == SQLite {
		b.suite.Database = "sqlite:" + filepath.Join(b.DataDir("sqlite"), "history.db")
		return nil
	}
	dir := b.DataDir("postgres")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of PostgreSQL: %w", err)
	}
	if b.suite.Postgres, err = RunPostgres(ctx, dir); err != nil {
		return err
	}
	b.suite.Database = b.suite.Postgres.URL()
	if b.LazyDatabase {
		return b.suite.Postgres.syncNothing(ctx)
	}
	return nil
}

func (b *builder) startHistories(ctx context.Context) error {
	for i := range b.Histories {
		listen, err := reserve.Address()
		if err != nil {
			return err
		}
		name := "history-" + strconv.Itoa(i)
		database, err := b.database(name)
		if err != nil {
			return err
		}
		p, err := b.service(ctx, History, name, map[string]string{"history.database": database, "rpc.listen": listen})
		if err != nil {
			return err
		}
		b.suite.Histories = append(b.suite.Histories, p)
		b.histories = append(b.histories, listen)
	}
	return nil
}

func (b *builder) startDeliveries(ctx context.Context) error {
	for i := range b.Deliveries {
		name := "delivery-" + strconv.Itoa(i)
		servers, history, err := b.behind(name, i)
		if err != nil {
			return err
		}
		p, err := b.service(ctx, Delivery, name, map[string]string{
			"nats.url": servers, "nats.replicas": strconv.Itoa(b.NATSNodes),
		}, historyVariable+"="+history)
		if err != nil {
			return err
		}
		b.suite.Deliveries = append(b.suite.Deliveries, p)
	}
	return nil
}

func (b *builder) startGateways(ctx context.Context) error {
	for i := range b.Gateways {
		listen, err := reserve.Address()
		if err != nil {
			return err
		}
		name := "gateway-" + strconv.Itoa(i)
		servers, history, err := b.behind(name, i)
		if err != nil {
			return err
		}
		front, err := b.link(Clients, name, listen)
		if err != nil {
			return err
		}
		p, err := b.service(ctx, Gateway, name, map[string]string{
			"nats.url": servers, "gateway.listen": listen,
		}, historyVariable+"="+history, secretVariable+"="+b.suite.secret)
		if err != nil {
			return err
		}
		b.suite.Gateways = append(b.suite.Gateways, p)
		b.suite.URLs = append(b.suite.URLs, "ws://"+front+clientPath)
		b.suite.Direct = append(b.suite.Direct, "ws://"+listen+clientPath)
	}
	return nil
}

// service starts one of Runnel's programs with its own admin port and RPC port. Another process may use a port before the
// program listens on it; service then chooses other ports.
func (b *builder) service(ctx context.Context, program, name string, flags map[string]string, environment ...string) (*Process, error) {
	for tries := 3; ; tries-- {
		p, err := b.try(ctx, program, name, maps.Clone(flags), environment...)
		if err == nil || tries <= 1 || !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) {
			return p, err
		}
	}
}

func (b *builder) try(ctx context.Context, program, name string, flags map[string]string, environment ...string) (*Process, error) {
	admin, err := reserve.Address()
	if err != nil {
		return nil, err
	}
	args := []string{"--admin.listen=" + admin}
	if _, set := flags["rpc.listen"]; !set {
		if flags["rpc.listen"], err = reserve.Address(); err != nil {
			return nil, err
		}
	}
	for flag, value := range flags {
		args = append(args, "--"+flag+"="+value)
	}
	slices.Sort(args)
	return Run(ctx, Command{
		Name: name, Path: b.Binaries[program], Args: append(args, b.Flags[program]...), Env: slices.Concat(environment, b.Environment),
		Log: b.log(name), Ready: "http://" + admin + "/readyz", Crashed: b.Crashed,
	})
}

func (b *builder) log(name string) string { return filepath.Join(b.Dir, name+".log") }
