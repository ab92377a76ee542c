package gateway

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// Config configures a gateway. The zero value is not usable; the tags contain the defaults.
type Config struct {
	Listen         string        `help:"Address that clients connect to." default:"127.0.0.1:8080"`
	TLS            certs.KeyPair `embed:"" prefix:"tls."`
	AllowedOrigins []string      `help:"Origins of web pages that may connect, for example https://chat.example.com; * allows all. Pages of the gateway's own host may always connect."`
	TrustedProxies int           `help:"Number of proxies in front that append to X-Forwarded-For; 0 ignores the header." default:"0"`

	// ProxyProtocolFrom turns the PROXY protocol on: the client's address is then the one that the load balancer reports.
	ProxyProtocolFrom []string `help:"Networks of load balancers that begin each connection with a PROXY header, version 1 or 2, for example 10.0.0.0/8. Their connections without one are closed; from other addresses the header is not accepted."`

	MaxConnections               int     `help:"Maximum number of connections of authenticated clients to this gateway." default:"100000"`
	MaxConnectionsPerUser        int     `help:"Maximum number of connections of one user to this gateway." default:"50"`
	MaxConnectionsPerIP          int     `help:"Maximum number of connections from one IPv4 address or IPv6 /64." default:"5000"`
	MaxConnectionsPerNetwork     int     `help:"Maximum number of connections from one IPv6 /48." default:"20000"`
	ConnectRatePerIP             float64 `help:"New connections per second from one IPv4 address or IPv6 /64, after a burst of ten times that." default:"200"`
	ConnectRatePerNetwork        float64 `help:"New connections per second from one IPv6 /48, after a burst of ten times that." default:"800"`
	ConnectRate                  float64 `help:"New connections per second of this gateway, after a burst of twice that; 0 for no limit. Connections above it are refused with a reconnect delay, so that many clients that return at once do not overload the history service." default:"5000"`
	MaxSockets                   int     `help:"Maximum number of open client sockets; 0 for the descriptor limit (ulimit -n) less what the rest of the process needs." default:"0"`
	MaxUnauthenticated           int     `help:"Maximum number of sockets whose client is not authenticated. At this limit, and at the next two, the oldest of them is closed in favour of the new one." default:"10000"`
	MaxUnauthenticatedPerIP      int     `help:"max-unauthenticated for one IPv4 address or IPv6 /64. Does not apply to loopback addresses, or with trusted-proxies." default:"500"`
	MaxUnauthenticatedPerNetwork int     `help:"max-unauthenticated for one IPv6 /48." default:"2000"`
	MaxUnauthenticatedBytes      int64   `help:"Bytes of memory for the first messages of clients that are not authenticated. A client above it is asked to reconnect." default:"67108864"`

	FrameRate          float64 `help:"Frames per second from one connection, after a burst of ten times that." default:"50"`
	CommandRatePerUser float64 `help:"Commands per second of one user, after a burst of ten times that." default:"20"`
	MaxCommands        int     `help:"Maximum number of commands of this gateway that wait for an outcome." default:"65536"`
	MaxFrameBytes      int     `help:"Largest WebSocket message accepted from a client, at least 65536. With less than the default, some messages that the protocol allows are refused." default:"163840"`

	SendQueueBytes int `help:"Maximum number of bytes waiting to be sent to one connection. The connection of a slower client is closed; the client reconnects and resumes." default:"262144"`
	RecentBytes    int `help:"Bytes of memory for recent events of all conversations, from which reconnecting clients are served." default:"67108864"`

	ConnectTimeout        time.Duration `help:"Time limit for the first frame after the WebSocket handshake." default:"10s"`
	AuthenticationTimeout time.Duration `help:"Time limit from accepting a socket until its client is authenticated, whatever the client does meanwhile; at least connect-timeout." default:"30s"`
	RequestTimeout        time.Duration `help:"Time limit for a client to send an HTTP request, and to read the answer." default:"10s"`
	Heartbeat             time.Duration `help:"Interval of heartbeats." default:"25s"`
	AckTimeout            time.Duration `help:"Time until an unacknowledged event is sent again; doubles with each try." default:"10s"`
	AckTries              int           `help:"Times an unacknowledged event is sent again before the connection is closed." default:"5"`
	TokenWarning          time.Duration `help:"Time before a token's expiry at which the client is warned." default:"60s"`
	WriteTimeout          time.Duration `help:"Time for a full socket to accept its backlog before the connection is closed." default:"15s"`
	HistoryTimeout        time.Duration `help:"Time limit for one call of the history service." default:"5s"`
	Drain                 time.Duration `help:"Longest time over which connections are closed when the gateway stops. It takes precedence over drain-rate; the process needs up to 5s more to exit." default:"10s"`
	DrainRate             int           `help:"Clients per second that are moved to other gateways when this one stops. If drain is too short for all of them, clients that are closed early are asked to wait, up to 30s." default:"500"`

	RevocationInterval time.Duration `help:"Interval at which revocations are read from the history service, in case a notice was lost. Notices take effect at once." default:"10s"`

	ExplainEntries int `help:"Number of steps of events kept in memory for runnel admin explain, 32 bytes each; 0 keeps none. Delivering an event to a connection takes three." default:"196608"`

	ClientTraceRate        float64 `help:"Sampled client traces per second that the gateway continues; commands above that rate start a trace of their own. 0 continues none." default:"100"`
	ClientTraceRatePerUser float64 `help:"Sampled client traces per second of one user that the gateway continues." default:"10"`
}

// leastInterval is the shortest interval or timeout that a setting may have.
const leastInterval = time.Millisecond

// validate rejects settings that would make the gateway hang or flood other services.
func (c Config) validate() error {
	for name, value := range map[string]time.Duration{
		"connect-timeout": c.ConnectTimeout, "heartbeat": c.Heartbeat, "ack-timeout": c.AckTimeout, "write-timeout": c.WriteTimeout,
		"history-timeout": c.HistoryTimeout, "revocation-interval": c.RevocationInterval,
		"authentication-timeout": c.AuthenticationTimeout, "request-timeout": c.RequestTimeout,
	} {
		if value < leastInterval {
			return fmt.Errorf("gateway.%s is %v: must be at least %v", name, value, leastInterval)
		}
	}
	for name, value := range map[string]int{
		"max-connections": c.MaxConnections, "max-connections-per-user": c.MaxConnectionsPerUser, "max-connections-per-ip": c.MaxConnectionsPerIP,
		"max-connections-per-network": c.MaxConnectionsPerNetwork, "send-queue-bytes": c.SendQueueBytes,
		"max-unauthenticated": c.MaxUnauthenticated, "max-unauthenticated-per-ip": c.MaxUnauthenticatedPerIP,
		"max-unauthenticated-per-network": c.MaxUnauthenticatedPerNetwork,
	} {
		if value < 1 {
			return fmt.Errorf("gateway.%s is %d: must be at least 1", name, value)
		}
	}
	for name, value := range map[string]float64{"connect-rate-per-ip": c.ConnectRatePerIP, "connect-rate-per-network": c.ConnectRatePerNetwork} {
		if value <= 0 {
			return fmt.Errorf("gateway.%s is %v: must be above 0", name, value)
		}
	}
	if c.AuthenticationTimeout < c.ConnectTimeout {
		return fmt.Errorf("gateway.authentication-timeout is %v: must be at least gateway.connect-timeout, which is %v", c.AuthenticationTimeout, c.ConnectTimeout)
	}
	if c.MaxUnauthenticatedBytes < protocol.MaxConnectBytes {
		return fmt.Errorf("gateway.max-unauthenticated-bytes is %d: must be at least %d, the size that a connect frame may have", c.MaxUnauthenticatedBytes, protocol.MaxConnectBytes)
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if c.MaxFrameBytes < protocol.MaxConnectBytes {
		return fmt.Errorf("gateway.max-frame-bytes is %d: must be at least %d, the size that a connect frame may have", c.MaxFrameBytes, protocol.MaxConnectBytes)
	}
	return nil
}

// proxies returns the networks from which a PROXY header is accepted.
func (c Config) proxies() ([]netip.Prefix, error) {
	networks := make([]netip.Prefix, 0, len(c.ProxyProtocolFrom))
	for _, text := range c.ProxyProtocolFrom {
		network, err := netip.ParsePrefix(text)
		if address, err2 := netip.ParseAddr(text); err != nil && err2 == nil {
			network, err = address.Prefix(address.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("gateway.proxy-protocol-from: %q is not a network such as 10.0.0.0/8", text)
		}
		networks = append(networks, network.Masked())
	}
	return networks, nil
}
