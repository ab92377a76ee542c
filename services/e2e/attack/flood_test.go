package attack_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/gateway"
	"github.com/runnelhq/runnel/services/standalone"
)

// The limits of a target that is flooded. Its time limits are long, so that it must keep to the numbers.
const (
	perAddress = 20
	perNetwork = 40
	inTotal    = 100
	floodSize  = 300
)

func flooded(_ *testing.T, cfg *standalone.Config) {
	g := &cfg.Gateway
	g.ProxyProtocolFrom = []string{"127.0.0.0/8"} // the attacker has as many addresses as it likes
	g.MaxUnauthenticatedPerIP, g.MaxUnauthenticatedPerNetwork, g.MaxUnauthenticated = perAddress, perNetwork, inTotal
	g.RequestTimeout, g.ConnectTimeout, g.AuthenticationTimeout = time.Hour, time.Hour, time.Hour
	g.MaxConnections = 10
}

// from opens a socket with an address of the attacker's choice.
func (s *target) from(source string) net.Conn {
	s.Helper()
	conn := s.dial("gateway")
	_, err := conn.Write([]byte(header(source)))
	require.NoError(s, err)
	return conn
}

// flood opens sockets, and goes to a stage on each. Those that are closed for others meanwhile are of no use to the attacker.
func (s *target) flood(sent string, source func(i int) string) {
	s.Helper()
	var conns []net.Conn
	for i := range floodSize {
		conn := s.from(source(i))
		_, _ = conn.Write([]byte(sent))
		conns = append(conns, conn)
	}
	require.Eventually(s, func() bool { // a listener learns of an address when it has read the PROXY header
		return s.metric("runnel_listener_closed_total", "gateway") >= float64(floodSize-s.attack.bound.sockets)
	}, patience, 10*time.Millisecond)
	s.during()
	for _, conn := range conns {
		_ = conn.Close()
	}
}

func oneAddress(int) string   { return "203.0.113.5" }
func oneNetwork(i int) string { return fmt.Sprintf("2001:db8:66:1:%x::%x", i, i) }
func oneSite(i int) string    { return fmt.Sprintf("2001:db8:66:%x::1", i) }
func manySites(i int) string  { return fmt.Sprintf("2001:db8:%x::1", i+0x100) }

var body = "POST /dev/token" + httpHead + "Content-Length: 100\r\n\r\n{"

const evicts = "the oldest sockets of the attacker are closed"

var floods = []attack{
	{
		name: "sockets of one address", tries: "300 sockets that send nothing", seen: evicts, bound: bound{sockets: perAddress, megabytes: 64, lines: 1},
		settings: flooded, run: func(s *target) { s.flood("", oneAddress) },
	},
	{
		name: "a rotating /64", tries: "300 bodies that never come, each from another address of an IPv6 /64", seen: evicts, bound: bound{sockets: perAddress, megabytes: 64, lines: 1},
		settings: flooded, run: func(s *target) { s.flood(body, oneNetwork) },
	},
	{
		name: "a rotating /48", tries: "300 bodies that never come, each from another /64 of an IPv6 /48", seen: evicts, bound: bound{sockets: perNetwork, megabytes: 64, lines: 1},
		settings: flooded, run: func(s *target) { s.flood(body, oneSite) },
	},
	{
		name: "sockets from everywhere", tries: "300 bodies that never come, each from another network", seen: evicts, bound: bound{sockets: inTotal, megabytes: 64, lines: 1},
		settings: flooded, run: func(s *target) { s.flood(body, manySites) },
	},
	{
		name: "silent clients from everywhere", tries: "300 WebSockets that never authenticate, where 10 clients may connect", seen: evicts + "; they take no place of a client",
		bound: bound{sockets: inTotal, goroutines: 0, megabytes: 64, lines: 1}, settings: flooded,
		run: func(s *target) { s.flood(upgrade+"\r\n", manySites) },
	},
	{
		name: "churn from a rotating /64", tries: "200 WebSockets, each closed at once, from other addresses of a /64", seen: "429 after the burst of the /64; others connect",
		bound: bound{sockets: 5, megabytes: 64, lines: 1}, settings: func(t *testing.T, cfg *standalone.Config) {
			t.Helper()
			flooded(t, cfg)
			cfg.Gateway.ConnectRatePerIP = 1 // ten, then one a second
		},
		run: churn,
	},
	{
		name: "half a first message from everywhere", tries: "90 WebSockets that send all but a byte of 64 KiB, where strangers may use 1 MiB", seen: "those above it are closed with 4005",
		bound: bound{sockets: inTotal, megabytes: 64, lines: 1}, settings: func(t *testing.T, cfg *standalone.Config) {
			t.Helper()
			flooded(t, cfg)
			cfg.Gateway.MaxUnauthenticatedBytes = 1 << 20
		},
		run: hoard,
	},
	{
		name: "more sockets than descriptors", tries: "600 bodies that never come on the gateway, 100 each on the admin port and gRPC, of a process with 512 descriptors",
		seen: "each port keeps to its share; clients, operators and probes are served", bound: bound{lines: 1}, run: exhaust,
	},
}

func churn(s *target) {
	s.Helper()
	refused := 0
	dialer := s.dialer()
	for i := range 200 {
		dialer.NetDialContext = func(context.Context, string, string) (net.Conn, error) { return s.from(oneNetwork(i)), nil }
		ws, response, err := dialer.DialContext(s.Context(), "ws://"+s.address("gateway")+gateway.Path, nil)
		if err == nil {
			_ = response.Body.Close()
			_ = ws.Close()
			continue
		}
		require.ErrorIs(s, err, websocket.ErrBadHandshake)
		require.Equal(s, http.StatusTooManyRequests, response.StatusCode)
		_ = response.Body.Close()
		refused++
	}
	require.Positive(s, refused)
	require.Greater(s, refused, 100)
	s.source = "192.0.2.11" // of honest clients that have not connected before
	s.during()
	s.source = "192.0.2.12"
}

// hoard keeps first messages in the memory of the gateway.
func hoard(s *target) {
	s.Helper()
	head := append(binary.BigEndian.AppendUint64([]byte{0x81, 0xff}, protocol.MaxConnectBytes), 0, 0, 0, 0)
	message := slices.Concat(head, make([]byte, protocol.MaxConnectBytes-1))
	const most = 90
	var sockets []*websocket.Conn
	dialer := s.dialer()
	for i := range most {
		dialer.NetDialContext = func(context.Context, string, string) (net.Conn, error) { return s.from(manySites(i)), nil }
		ws, response, err := dialer.DialContext(s.Context(), "ws://"+s.address("gateway")+gateway.Path, nil)
		require.NoError(s, err)
		_ = response.Body.Close()
		sockets = append(sockets, ws)
		_, err = ws.NetConn().Write(message)
		require.NoError(s, err)
	}
	fit := 1<<20/protocol.MaxConnectBytes + 1
	require.Eventually(s, func() bool {
		return s.metric("runnel_gateway_limit_refusals_total", "max_unauthenticated_bytes") >= float64(most-fit)
	}, patience, 10*time.Millisecond)
	s.during()
	for _, ws := range sockets {
		_ = ws.Close()
	}
}

// exhaust attacks a process with few descriptors.
func exhaust(s *target) {
	s.Helper()
	if runtime.GOOS != "linux" {
		s.Skip("counts descriptors in /proc")
	}
	const descriptors = 512
	dir := s.TempDir()
	programs, err := programs()
	require.NoError(s, err)
	addresses := map[string]string{}
	for _, listener := range []string{"gateway", "rpc", "admin"} {
		l, err := (&net.ListenConfig{}).Listen(s.Context(), "tcp", "127.0.0.1:0")
		require.NoError(s, err)
		addresses[listener] = l.Addr().String()
		require.NoError(s, l.Close())
	}
	process, err := launch.Run(s.Context(), launch.Command{
		Name: "small", Path: "/bin/sh", Log: filepath.Join(dir, "log"), Ready: "http://" + addresses["admin"] + "/readyz",
		Args: []string{
			"-c", "ulimit -n " + strconv.Itoa(descriptors) + ` && exec "$0" "$@"`, programs[launch.Standalone], "--data-dir=" + filepath.Join(dir, "data"),
			"--nats.partitions=4", "--gateway.max-connections=1000", "--gateway.listen=" + addresses["gateway"], "--rpc.listen=" + addresses["rpc"], "--admin.listen=" + addresses["admin"],
			"--gateway.request-timeout=1h", "--gateway.authentication-timeout=1h", "--gateway.connect-timeout=1h", "--admin.request-timeout=1h", "--rpc.handshake-timeout=1h",
		},
		Env: []string{"RUNNEL_AUTH_HMAC_SECRET=" + secret},
	})
	require.NoError(s, err)
	defer process.Kill()
	for listener, sockets := range map[string]int{"gateway": 600, "rpc": 100, "admin": 100} {
		for range sockets {
			conn, err := (&net.Dialer{}).DialContext(s.Context(), "tcp", addresses[listener])
			require.NoError(s, err)
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write([]byte(body))
		}
	}
	require.Eventually(s, func() bool {
		open, err := os.ReadDir("/proc/" + strconv.Itoa(process.PID()) + "/fd")
		return err == nil && len(open) <= descriptors*7/8
	}, patience, 10*time.Millisecond, "descriptors are left")
	// The process is served from, as if it were the target.
	small := &target{T: s.T, elsewhere: addresses, secret: []byte(secret)}
	small.honest = small.connect("ann")
	small.serves()
	response, err := http.Get("http://" + addresses["admin"] + "/readyz")
	require.NoError(s, err)
	require.NoError(s, response.Body.Close())
	require.Equal(s, http.StatusOK, response.StatusCode)
	metrics, err := process.Metrics(s.Context())
	require.NoError(s, err)
	require.Zero(s, metrics[`runnel_listener_closed_total{listener="gateway",reason="no_descriptors"}`], "it does not come to that")
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(s, err)
	require.Contains(s, string(log), "ulimit -n", "a warning at start names the limit")
	small.honest.leave()
	s.during()
}
