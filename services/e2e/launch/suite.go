package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/pkg/auth"
)

// Store names a database.
type Store string

// The databases.
const (
	SQLite     Store = "sqlite"
	PostgreSQL Store = "postgres"
)

const (
	// secretVariable is where gateways find the secret that signs tokens.
	secretVariable = "RUNNEL_AUTH_HMAC_SECRET"
	// historyVariable is where gateways and workers find the history service.
	historyVariable = "RUNNEL_HISTORY_ADDRESS"
	// clientPath is where gateways take clients.
	clientPath = "/v1/ws"
)

// Options say what a suite consists of.
type Options struct {
	// Dir gets data and logs. It is made if it does not exist, and left behind.
	Dir string
	// Binaries must have the programs that are started: for Start, Gateway, Delivery, History and NATSServer.
	Binaries Binaries
	// Store defaults to SQLite.
	Store Store
	// NATSNodes is 1 or 3 (streams are replicated then). Defaults to 1.
	NATSNodes int
	// Gateways and Deliveries default to 2, Histories to 1; more than 1 only with PostgreSQL. Gateway and delivery i
	// talk to history i modulo their number.
	Gateways, Deliveries, Histories int
	// Flags are added to those of a program, by its name.
	Flags map[string][]string
	// Crashed is told when a process of a service ends though nobody asked it to. May be nil.
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
	if o.Store == SQLite && o.Histories > 1 {
		return o, errors.New("launch: an SQLite file has one history service")
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return o, fmt.Errorf("launch: find the directory: %w", err)
	}
	o.Dir = dir
	// PostgreSQL's own user must get through.
	return o, os.MkdirAll(dir, 0o755)
}

// Suite is a set of services that work together.
type Suite struct {
	// NATS, Histories, Deliveries and Gateways are the parts of Start; Postgres is nil with SQLite.
	NATS, Histories, Deliveries, Gateways []*Process
	Postgres                              *Postgres
	// Standalone is the only part of StartStandalone.
	Standalone *Process

	// URLs are the addresses of the gateways for clients: ws://…/v1/ws.
	URLs []string
	// Database is where everything is stored: "sqlite:PATH" or "postgres://…".
	Database string

	secret string
}

// Start starts everything as processes of their own and waits until all are ready. Stop it when done.
func Start(ctx context.Context, options Options) (*Suite, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Suite{secret: newSecret()}
	b := builder{Options: options, suite: s}
	for _, step := range []func(context.Context) error{b.startStore, b.startNATS, b.startHistories, b.startDeliveries, b.startGateways} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Stop())
		}
	}
	return s, nil
}

// StartStandalone starts the one process that is everything, and waits until it is ready.
func StartStandalone(ctx context.Context, options Options) (*Suite, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Suite{secret: newSecret()}
	b := builder{Options: options, suite: s}
	listen, err := address()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(options.Dir, "standalone")
	s.Standalone, err = b.service(ctx, Standalone, "standalone", map[string]string{"data-dir": data, "gateway.listen": listen}, secretVariable+"="+s.secret)
	s.URLs = []string{"ws://" + listen + clientPath}
	s.Database = "sqlite:" + filepath.Join(data, "history.db")
	return s, err
}

// Token makes a token for a user, good for a day.
func (s *Suite) Token(user string) (string, error) {
	return auth.Mint([]byte(s.secret), user, 24*time.Hour, time.Now(), "", "")
}

// Parts lists everything that runs, in the order in which it was started.
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

// Stop ends everything in order, the gateways first.
func (s *Suite) Stop() error {
	var failed []error
	parts := s.Parts()
	slices.Reverse(parts)
	for _, part := range parts {
		failed = append(failed, part.Stop())
	}
	return errors.Join(failed...)
}

// Kill ends everything at once.
func (s *Suite) Kill() {
	for _, part := range s.Parts() {
		part.Kill()
	}
}

// builder starts the parts of a suite one after the other.
type builder struct {
	Options
	suite *Suite
	// natsURL and histories are addresses of what was started.
	natsURL   []string
	histories []string
}

func (b *builder) startStore(ctx context.Context) (err error) {
	if b.Store == SQLite {
		b.suite.Database = "sqlite:" + filepath.Join(b.Dir, "history.db")
		return nil
	}
	dir := filepath.Join(b.Dir, "postgres")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make the directory of PostgreSQL: %w", err)
	}
	if b.suite.Postgres, err = RunPostgres(ctx, dir); err != nil {
		return err
	}
	b.suite.Database = b.suite.Postgres.URL()
	return nil
}

func (b *builder) startNATS(ctx context.Context) error {
	var ports, monitors, routes []int
	var list []string
	for range b.NATSNodes {
		for _, field := range []*[]int{&ports, &monitors, &routes} {
			port, err := freePort()
			if err != nil {
				return err
			}
			*field = append(*field, port)
		}
		list = append(list, fmt.Sprintf("nats://127.0.0.1:%d", routes[len(routes)-1]))
	}
	b.suite.NATS = make([]*Process, b.NATSNodes)
	group, starting := errgroup.WithContext(ctx) // a node of a cluster is ready when others are
	for i := range b.NATSNodes {
		name := "nats-" + strconv.Itoa(i)
		data := filepath.Join(b.Dir, name)
		args := []string{"-a", "127.0.0.1", "-p", strconv.Itoa(ports[i]), "-m", strconv.Itoa(monitors[i]), "-n", name, "-js", "-sd", data}
		if b.NATSNodes > 1 {
			args = append(args, "--cluster_name", "runnel", "--cluster", list[i], "--routes", strings.Join(list, ","))
		}
		group.Go(func() (err error) {
			b.suite.NATS[i], err = Run(starting, Command{
				Name: name, Path: b.Binaries[NATSServer], Args: append(args, b.Flags[NATSServer]...), Log: b.log(name), Data: data,
				Ready: fmt.Sprintf("http://127.0.0.1:%d/healthz?js-server-only=true", monitors[i]), Crashed: b.Crashed,
			})
			return err
		})
	}
	err := group.Wait()
	b.suite.NATS = slices.DeleteFunc(b.suite.NATS, func(p *Process) bool { return p == nil })
	for _, port := range ports {
		b.natsURL = append(b.natsURL, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	return err
}

func (b *builder) startHistories(ctx context.Context) error {
	for i := range b.Histories {
		listen, err := address()
		if err != nil {
			return err
		}
		p, err := b.service(ctx, History, "history-"+strconv.Itoa(i), map[string]string{"history.database": b.suite.Database, "rpc.listen": listen})
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
		p, err := b.service(ctx, Delivery, "delivery-"+strconv.Itoa(i), map[string]string{
			"nats.url": strings.Join(b.natsURL, ","), "nats.replicas": strconv.Itoa(b.NATSNodes),
		}, historyVariable+"="+b.histories[i%b.Histories])
		if err != nil {
			return err
		}
		b.suite.Deliveries = append(b.suite.Deliveries, p)
	}
	return nil
}

func (b *builder) startGateways(ctx context.Context) error {
	for i := range b.Gateways {
		listen, err := address()
		if err != nil {
			return err
		}
		p, err := b.service(ctx, Gateway, "gateway-"+strconv.Itoa(i), map[string]string{
			"nats.url": strings.Join(b.natsURL, ","), "gateway.listen": listen,
		}, historyVariable+"="+b.histories[i%b.Histories], secretVariable+"="+b.suite.secret)
		if err != nil {
			return err
		}
		b.suite.Gateways = append(b.suite.Gateways, p)
		b.suite.URLs = append(b.suite.URLs, "ws://"+listen+clientPath)
	}
	return nil
}

// service starts one of our programs with an admin port and an RPC port of its own.
func (b *builder) service(ctx context.Context, program, name string, flags map[string]string, environment ...string) (*Process, error) {
	admin, err := address()
	if err != nil {
		return nil, err
	}
	args := []string{"--admin.listen=" + admin}
	if _, set := flags["rpc.listen"]; !set {
		if flags["rpc.listen"], err = address(); err != nil {
			return nil, err
		}
	}
	for flag, value := range flags {
		args = append(args, "--"+flag+"="+value)
	}
	slices.Sort(args)
	return Run(ctx, Command{
		Name: name, Path: b.Binaries[program], Args: append(args, b.Flags[program]...), Env: environment,
		Log: b.log(name), Ready: "http://" + admin + "/readyz", Crashed: b.Crashed,
	})
}

func (b *builder) log(name string) string { return filepath.Join(b.Dir, name+".log") }
