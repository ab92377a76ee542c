package attack_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
	"github.com/runnelhq/runnel/services/e2e/devkeys"
	"github.com/runnelhq/runnel/services/standalone"
)

const (
	secret = "a secret for attacks, of 32 bytes!"
	// patience bounds waits that only a defect makes long.
	patience = 30 * time.Second
)

// The time limits of a target: long enough for an honest client on a loaded machine, which tries again as clients do, and short
// enough to wait for.
const (
	requestTimeout        = time.Second
	connectTimeout        = 2 * time.Second
	authenticationTimeout = 4 * time.Second
)

// target is a standalone Runnel in this process.
type target struct {
	*testing.T

	attack    attack
	server    *standalone.Standalone
	tel       *telemetry.Telemetry
	log       *telemetrytest.Log
	trust     *tls.Config // for clients; nil without TLS
	ring      *devkeys.Ring
	elsewhere map[string]string // addresses of another process, by listener; nil for this one
	source    string            // the address that a PROXY header names for honest clients; empty without
	secret    []byte            // signs the tokens of honest clients
	honest    *client
	callers   []io.Closer // closed at the end of the attack
	before    cost
	checked   bool
}

// ring are the keys that secured gives to a target.
var ring *devkeys.Ring

// secured turns TLS on, for clients and between services.
func secured(t *testing.T, cfg *standalone.Config) {
	t.Helper()
	var err error
	ring, err = devkeys.Make(t.TempDir(), []string{"127.0.0.1", "localhost"}, time.Hour)
	require.NoError(t, err)
	clients := ring.Files(devkeys.Clients)
	cfg.Gateway.TLS.CertFile, cfg.Gateway.TLS.KeyFile = clients.CertFile, clients.KeyFile
	cfg.RPC.TLS = ring.Files("service")
}

// start runs a target with an honest client.
func start(t *testing.T, a attack) *target {
	t.Helper()
	var cfg standalone.Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen, cfg.DataDir = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	cfg.NATS.Partitions, cfg.NATS.MaxBytes, cfg.Auth.HMACSecret = 4, 8<<20, secret
	cfg.Gateway.RequestTimeout, cfg.Admin.RequestTimeout, cfg.RPC.HandshakeTimeout = requestTimeout, requestTimeout, authenticationTimeout
	cfg.Gateway.ConnectTimeout, cfg.Gateway.AuthenticationTimeout = connectTimeout, authenticationTimeout
	// The clients of the tests answer no heartbeats and acknowledge nothing, and an attack may take minutes.
	cfg.Gateway.Heartbeat, cfg.Gateway.AckTimeout = time.Hour, time.Hour
	// Periodic calls of history would count among those of the attack; see historyCalls.
	cfg.Gateway.RevocationInterval = time.Hour
	// On a loaded machine these take long. Their warnings would count among the lines of the attack.
	cfg.Delivery.LeaseTTL, cfg.Delivery.AppendTimeout = time.Minute, time.Minute
	if a.settings != nil {
		a.settings(t, &cfg)
	}
	s := &target{T: t, attack: a, log: &telemetrytest.Log{}}
	if cfg.Gateway.TLS.CertFile != "" {
		s.ring = ring
		authority, err := os.ReadFile(ring.Files(devkeys.Clients).CAFile)
		require.NoError(t, err)
		s.trust = trusting(t, authority)
	}
	if len(cfg.Gateway.ProxyProtocolFrom) > 0 {
		s.source = "192.0.2.10"
	}
	cfg.Telemetry.LogLevel, cfg.Telemetry.LogFormat = "info", "json"
	s.tel, err = telemetry.Start(t.Context(), "test", cfg.Telemetry, s.log)
	require.NoError(t, err)
	s.server, err = standalone.New(t.Context(), cfg, s.tel)
	require.NoError(t, err)
	s.secret = []byte(cfg.Auth.HMACSecret)
	if s.server.Development() {
		s.secret, err = standalone.DevSecret(cfg.DataDir)
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	s.honest = s.connect("ann")
	s.honest.say()
	s.connect("ann").leave()
	s.settle(1)
	s.before = s.cost()
	return s
}

// address is that of a listener.
func (s *target) address(listener string) string {
	switch {
	case s.elsewhere != nil:
		return s.elsewhere[listener]
	case listener == "gateway":
		return s.server.Addr().String()
	case listener == "rpc":
		return s.server.RPCAddr()
	default:
		return s.server.AdminAddr()
	}
}

// dial opens a socket to a listener, which the test closes at its end.
func (s *target) dial(listener string) net.Conn {
	s.Helper()
	conn, err := (&net.Dialer{}).DialContext(s.Context(), "tcp", s.address(listener))
	require.NoError(s, err)
	s.Cleanup(func() { _ = conn.Close() })
	return conn
}

// cost is what a target uses.
type cost struct {
	sockets    map[string]int
	goroutines int
	megabytes  int
	calls      int
	lines      int
}

// metric sums the series of a family whose labels include a value.
func (s *target) metric(family, label string) (sum float64) {
	s.Helper()
	families, err := s.tel.Registry.Gather()
	require.NoError(s, err)
	for _, f := range families {
		if f.GetName() != family {
			continue
		}
		for _, m := range f.GetMetric() {
			fits := label == ""
			for _, l := range m.GetLabel() {
				fits = fits || l.GetValue() == label
			}
			if fits {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

func (s *target) sockets(listener string) int {
	s.Helper()
	return int(s.metric("runnel_listener_sockets", listener))
}

func (s *target) cost() cost {
	s.Helper()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	c := cost{
		sockets: map[string]int{}, goroutines: runtime.NumGoroutine(), megabytes: int(memory.HeapAlloc >> 20),
		calls: s.historyCalls(), lines: strings.Count(s.log.String(), "\n"),
	}
	for _, listener := range []string{"gateway", "rpc", "admin"} {
		c.sockets[listener] = s.sockets(listener)
	}
	return c
}

// historyCalls is the number of calls of history by the gateway, without those that it makes every few seconds by itself.
func (s *target) historyCalls() int {
	s.Helper()
	const calls = "runnel_gateway_history_calls_total"
	return int(s.metric(calls, "") - s.metric(calls, "installation"))
}

// honestCalls is more than the calls of history that honest clients cause while an attack is looked at, with their retries.
const honestCalls = 40

// during checks, at the height of the attack, that honest clients are served, and what the attack costs.
func (s *target) during() {
	s.Helper()
	s.checked = true
	for listener, kept := range s.before.sockets {
		require.Eventually(s, func() bool { return s.sockets(listener)-kept <= s.attack.bound.sockets }, patience, 10*time.Millisecond,
			"the sockets of %s", listener)
	}
	now := s.cost()
	if s.attack.bound.megabytes > 0 {
		require.LessOrEqual(s, now.megabytes-s.before.megabytes, s.attack.bound.megabytes)
	}
	s.serves()
}

// serves checks that an honest client that is connected sends, and that a new one connects and sends.
func (s *target) serves() {
	s.Helper()
	s.honest.say()
	newcomer := s.connect("ann")
	newcomer.room = s.honest.room
	newcomer.say()
	newcomer.leave()
}

// settle waits until clients have the sockets that they should have, and the other listeners none.
func (s *target) settle(clients int) {
	s.Helper()
	require.Eventually(s, func() bool {
		return s.sockets("gateway") == clients && s.sockets("rpc") == 0 && s.sockets("admin") == 0
	}, patience, 10*time.Millisecond)
}

// after checks that everything is as it was before the attack.
func (s *target) after() {
	s.Helper()
	for _, caller := range s.callers {
		_ = caller.Close()
	}
	s.settle(1)
	s.serves()
	s.settle(1)
	b := s.attack.bound
	require.Eventually(s, func() bool { return runtime.NumGoroutine()-s.before.goroutines <= b.goroutines+slack }, patience, 10*time.Millisecond)
	now := s.cost()
	require.LessOrEqual(s, now.calls-s.before.calls, b.calls+honestCalls)
	require.LessOrEqual(s, now.lines-s.before.lines, b.lines, "%s", s.log)
	require.NotContains(s, s.log.String(), "panic")
}

// slack is for goroutines of the embedded NATS server and the store, which come and go.
const slack = 10
