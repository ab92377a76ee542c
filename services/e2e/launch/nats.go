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
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/runnelhq/runnel/pkg/listen/reserve"
)

const natsScheme = "nats://"

// node contains the listen addresses of one NATS server.
type node struct {
	name                      string
	clients, monitor, cluster string
}

func (b *builder) startNATS(ctx context.Context) error {
	nodes := make([]node, b.NATSNodes)
	for i := range nodes {
		nodes[i].name = "nats-" + strconv.Itoa(i)
		for _, field := range []*string{&nodes[i].clients, &nodes[i].monitor, &nodes[i].cluster} {
			var err error
			if *field, err = reserve.Address(); err != nil {
				return err
			}
		}
		b.suite.natsURL = append(b.suite.natsURL, natsScheme+nodes[i].clients)
	}
	b.suite.NATS = make([]*Process, b.NATSNodes)
	group, starting := errgroup.WithContext(ctx) // a node of a cluster is ready only when other nodes are
	for i, n := range nodes {
		settings, err := b.natsSettings(n, nodes)
		if err != nil {
			return err
		}
		file := filepath.Join(b.Dir, n.name+".conf")
		if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
			return fmt.Errorf("write the settings of %s: %w", n.name, err)
		}
		group.Go(func() (err error) {
			b.suite.NATS[i], err = Run(starting, Command{
				Name: n.name, Path: b.Binaries[NATSServer], Args: []string{"-c", file}, Log: b.log(n.name), Data: b.DataDir(n.name),
				Ready: "http://" + n.monitor + "/healthz?js-server-only=true", Crashed: b.Crashed,
			})
			return err
		})
	}
	err := group.Wait()
	b.suite.NATS = slices.DeleteFunc(b.suite.NATS, func(p *Process) bool { return p == nil })
	return err
}

// natsSettings writes the configuration of one server. Servers do not advertise each other: clients and servers use only
// the addresses that they were given, which may be proxies.
func (b *builder) natsSettings(n node, nodes []node) (string, error) {
	var s strings.Builder
	fmt.Fprintf(&s, "server_name: %s\nlisten: %q\nhttp: %q\n", n.name, n.clients, n.monitor)
	// The shortest duration that the server accepts.
	fmt.Fprintf(&s, "lame_duck_duration: 30s\nlame_duck_grace_period: 1s\n")
	// The limits of all streams together exceed a small volume. These limits are not the subject of the test.
	fmt.Fprintf(&s, "jetstream {\n  store_dir: %q\n  max_file_store: 1TB\n", b.DataDir(n.name))
	if b.NATSSync != "" {
		fmt.Fprintf(&s, "  sync_interval: %s\n", b.NATSSync)
	}
	s.WriteString("}\n")
	if len(nodes) == 1 {
		return s.String(), nil
	}
	fmt.Fprintf(&s, "cluster {\n  name: runnel\n  listen: %q\n  no_advertise: true\n", n.cluster)
	if b.Proxied {
		s.WriteString("  advertise: \"127.0.0.1:1\"\n") // no process listens there
	}
	s.WriteString("  routes: [\n")
	for _, other := range nodes {
		if other.name == n.name {
			continue
		}
		route, err := b.link(n.name, other.name, other.cluster)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&s, "    %q\n", natsScheme+route)
	}
	s.WriteString("  ]\n}\n")
	return s.String(), nil
}

// NATSURL returns the addresses of the NATS servers, without proxies.
func (s *Suite) NATSURL() string { return strings.Join(s.natsURL, ",") }

// LameDuck puts a NATS server into lame-duck mode, as in its pod, and waits for its end. In this mode it hands over its
// leaderships and disconnects its clients before it ends.
func LameDuck(p *Process) error { return p.end(syscall.SIGUSR2, lameDuckTimeout) }

const lameDuckTimeout = time.Minute // clients are disconnected over up to 30 s

// StreamLeader returns the NATS server that leads a stream.
func (s *Suite) StreamLeader(ctx context.Context, stream string) (*Process, error) {
	nc, err := nats.Connect(s.NATSURL(), nats.Timeout(2*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	found, err := js.Stream(ctx, stream)
	if err != nil {
		return nil, fmt.Errorf("look at the stream %s: %w", stream, err)
	}
	leader := s.NATS[0].Name()
	if cluster := found.CachedInfo().Cluster; cluster != nil {
		leader = cluster.Leader
	}
	for _, p := range s.NATS {
		if p.Name() == leader {
			return p, nil
		}
	}
	return nil, fmt.Errorf("the stream %s has no leader", stream)
}

// AwaitNATS waits until every running NATS server has caught up with the others.
func (s *Suite) AwaitNATS(ctx context.Context) error {
	for _, p := range s.NATS {
		if p.PID() == 0 {
			continue
		}
		all, _, _ := strings.Cut(p.Ready, "?")
		for {
			err := ask(ctx, all)
			if err == nil {
				break
			}
			if waiting := Sleep(ctx, pollInterval); waiting != nil {
				return fmt.Errorf("%s is behind: %w", p.Name(), errors.Join(waiting, err))
			}
		}
	}
	return nil
}
