package gateway

import (
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

func TestSettingsThatWouldHangOrFloodAreRefused(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"heartbeat":                       func(c *Config) { c.Heartbeat = 0 },
		"revocation-interval":             func(c *Config) { c.RevocationInterval = 0 },
		"history-timeout":                 func(c *Config) { c.HistoryTimeout = -1 },
		"max-connections":                 func(c *Config) { c.MaxConnections = -1 },
		"send-queue-bytes":                func(c *Config) { c.SendQueueBytes = -5 },
		"authentication-timeout":          func(c *Config) { c.AuthenticationTimeout = c.ConnectTimeout - 1 },
		"request-timeout":                 func(c *Config) { c.RequestTimeout = 0 },
		"max-unauthenticated":             func(c *Config) { c.MaxUnauthenticated = 0 },
		"max-unauthenticated-per-ip":      func(c *Config) { c.MaxUnauthenticatedPerIP = 0 },
		"max-unauthenticated-per-network": func(c *Config) { c.MaxUnauthenticatedPerNetwork = -1 },
		"max-unauthenticated-bytes":       func(c *Config) { c.MaxUnauthenticatedBytes = protocol.MaxConnectBytes - 1 },
		"max-connections-per-network":     func(c *Config) { c.MaxConnectionsPerNetwork = 0 },
		"connect-rate-per-ip":             func(c *Config) { c.ConnectRatePerIP = 0 },
		"connect-rate-per-network":        func(c *Config) { c.ConnectRatePerNetwork = -1 },
		"max-sockets":                     func(c *Config) { c.MaxSockets = -1 },
		"proxy-protocol-from":             func(c *Config) { c.ProxyProtocolFrom = []string{"10.0.0.0/8", "everybody"} },
		"max-frame-bytes":                 func(c *Config) { c.MaxFrameBytes = protocol.MaxFrameBytes - 1 },
		"frame-rate":                      func(c *Config) { c.FrameRate = 0 },
		"command-rate-per-user":           func(c *Config) { c.CommandRatePerUser = 0 },
		"read-rate-per-user":              func(c *Config) { c.ReadRatePerUser = 0 },
		"add-rate-per-user":               func(c *Config) { c.AddRatePerUser = 0 },
		"max-conversations-per-user":      func(c *Config) { c.MaxConversationsPerUser = -1 },
		"adding":                          func(c *Config) { c.Adding = "anybody" },
		"max-commands":                    func(c *Config) { c.MaxCommands = 0 },
		"recent-bytes":                    func(c *Config) { c.RecentBytes = -1 },
		"drain":                           func(c *Config) { c.Drain = -1 },
		"ack-tries":                       func(c *Config) { c.AckTries = 0 },
		"trusted-proxies":                 func(c *Config) { c.TrustedProxies = -1 },
		"allowed-origins":                 func(c *Config) { c.AllowedOrigins = []string{"https://chat.example.com/"} },
		"tls":                             func(c *Config) { c.TLS.CertFile = "only.pem" },
	} {
		var cfg Config
		parser, err := kong.New(&cfg)
		require.NoError(t, err)
		_, err = parser.Parse(nil)
		require.NoError(t, err)
		require.NoError(t, cfg.Validate(), "the defaults are valid")
		require.Equal(t, protocol.MaxFrameBytes, cfg.MaxFrameBytes, "the default frame size accepts every message that the protocol allows")
		spoil(&cfg)
		_, err = New(cfg, Deps{Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
		require.ErrorContains(t, err, "gateway."+name)
	}
}

func TestNetworksOfLoadBalancers(t *testing.T) {
	cfg := Config{ProxyProtocolFrom: []string{"10.1.2.3/8", "192.0.2.7", "2001:db8::7"}}
	networks, err := cfg.proxies()
	require.NoError(t, err)
	require.Equal(t, []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8::7/128"),
	}, networks)
}

// An operator who allows more connections than the process may have is told, with both numbers.
func TestTheDescriptorLimitIsComparedWithTheSettings(t *testing.T) {
	for name, c := range map[string]struct {
		connections, sockets, descriptors int
		warned                            bool
	}{
		"enough":                        {1000, 2000, 4000, false},
		"too few":                       {1000, 512, 1024, true},
		"more sockets than descriptors": {1000, 2000, 1500, true},
	} {
		log := &telemetrytest.Log{}
		warnOfDescriptors(Config{MaxConnections: c.connections}, c.sockets, c.descriptors, slog.New(slog.NewTextHandler(log, nil)))
		require.Equal(t, c.warned, strings.Contains(log.String(), "ulimit -n"), name)
		if c.warned {
			require.Contains(t, log.String(), "max-connections="+strconv.Itoa(c.connections))
			require.Contains(t, log.String(), "\"ulimit -n\"="+strconv.Itoa(c.descriptors))
		}
	}
}

// Without a setting a gateway allows the connections that it has sockets for.
func TestConnectionsFollowTheSockets(t *testing.T) {
	require.Equal(t, 512, Config{}.connections(512))
	require.Equal(t, mostConnections, Config{}.connections(1<<20))
	require.Equal(t, 700, Config{MaxConnections: 700}.connections(512), "what the operator sets is not lowered; there is a warning")
}

// Behind proxies that report addresses in a header of HTTP, all sockets come from a few addresses.
func TestBehindProxiesAnAddressHasNoLimitOfSockets(t *testing.T) {
	cfg := Config{MaxUnauthenticated: 10, MaxUnauthenticatedPerIP: 5, MaxUnauthenticatedPerNetwork: 7}
	direct, err := limits(cfg, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []int{10, 5, 7}, []int{direct.MaxUnauthenticated, direct.MaxPerAddress, direct.MaxPerNetwork})
	cfg.TrustedProxies = 1
	behind, err := limits(cfg, nil, nil)
	require.NoError(t, err)
	require.Equal(t, []int{10, 0, 0}, []int{behind.MaxUnauthenticated, behind.MaxPerAddress, behind.MaxPerNetwork})
}
