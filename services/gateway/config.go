package gateway

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/runnelhq/runnel/pkg/certs"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/gateway/admission"
	"github.com/runnelhq/runnel/services/gateway/requests"
)

// Config configures a gateway. The zero value is not usable; the tags contain the defaults.
type Config struct {
	Listen         string        `help:"Address that clients connect to." default:"127.0.0.1:8080"`
	TLS            certs.KeyPair `embed:"" prefix:"tls."`
	AllowedOrigins []string      `help:"Origins of web pages that may connect, for example https://chat.example.com: a scheme, a host and perhaps a port, without a path. * allows all. Pages of the gateway's own host may always connect."`
	TrustedProxies int           `help:"Number of proxies in front that append to X-Forwarded-For; 0 ignores the header." default:"0" range:"0..100"`

	// ProxyProtocolFrom enables the PROXY protocol: the gateway takes the client's address from the header that the load
	// balancer sends.
	ProxyProtocolFrom []string `help:"Networks of load balancers that begin each connection with a PROXY header, version 1 or 2, for example 10.0.0.0/8. A connection of theirs without a PROXY header is closed. From other addresses the header is not accepted."`

	MaxConnections               int     `help:"Maximum number of connections of authenticated clients to this gateway; 0 for as many as max-sockets allows, at most 100000." default:"0" range:"0..10000000"`
	MaxConnectionsPerUser        int     `help:"Maximum number of connections of one user to this gateway." default:"50" range:"1..1000000"`
	MaxConnectionsPerIP          int     `help:"Maximum number of connections from one IPv4 address or IPv6 /64." default:"5000" range:"1..10000000"`
	MaxConnectionsPerNetwork     int     `help:"Maximum number of connections from one IPv6 /48." default:"20000" range:"1..10000000"`
	ConnectRatePerIP             float64 `help:"New connections per second from one IPv4 address or IPv6 /64, after a burst of ten times that." default:"200" range:"0.01..1000000"`
	ConnectRatePerNetwork        float64 `help:"New connections per second from one IPv6 /48, after a burst of ten times that." default:"800" range:"0.01..1000000"`
	ConnectRate                  float64 `help:"New connections per second of this gateway, after a burst of twice that; 0 for no limit. Connections above it are refused with a reconnect delay, so that many clients that return at once do not overload the history service." default:"5000" range:"0,0.01..1000000"`
	MaxSockets                   int     `help:"Maximum number of open client sockets; 0 for the descriptor limit (ulimit -n) less what the rest of the process needs." default:"0" range:"0..10000000"`
	MaxUnauthenticated           int     `help:"Maximum number of sockets whose client is not authenticated. At this limit, and at the next two, the oldest of them is closed in favour of the new one." default:"10000" range:"1..10000000"`
	MaxUnauthenticatedPerIP      int     `help:"max-unauthenticated for one IPv4 address or IPv6 /64. Does not apply to loopback addresses, or with trusted-proxies." default:"500" range:"1..10000000"`
	MaxUnauthenticatedPerNetwork int     `help:"max-unauthenticated for one IPv6 /48." default:"2000" range:"1..10000000"`
	MaxUnauthenticatedBytes      int64   `help:"Bytes of memory for the first messages of clients that are not authenticated. A client above it is asked to reconnect." default:"67108864" range:"65536.."`

	FrameRate               float64 `help:"Frames per second from one connection, after a burst of ten times that." default:"50" range:"0.1..1000000"`
	CommandRatePerUser      float64 `help:"Commands per second of one user, after a burst of ten times that." default:"20" range:"0.1..1000000"`
	ReadRatePerUser         float64 `help:"Requests per second of one user that read the history, after a burst of ten times that." default:"50" range:"0.1..1000000"`
	AddRatePerUser          float64 `help:"Members per second that one user adds to conversations, by creating them or later; each command counts as one more. After a burst of ten times that, at least 2000." default:"50" range:"0.1..1000000"`
	MaxConversationsPerUser int     `help:"Maximum number of conversations that a user is a member of, checked when a member is added. Commands under way at the same time may exceed it by a few. 0 for no limit." default:"2000" range:"0..1000000"`
	Adding                  string  `help:"How users become members of conversations of others: direct (a user adds them at once) or server (only internal services add them, through DeliveryService)." default:"direct" enum:"direct,server"`
	MaxCommands             int     `help:"Maximum number of commands of this gateway that wait for an outcome." default:"65536" range:"1..10000000"`
	MaxFrameBytes           int     `help:"Largest WebSocket message accepted from a client. The default accepts every message that the protocol allows." default:"163840" range:"163840..16777216"`

	SendQueueBytes int `help:"Maximum number of bytes waiting to be sent to one connection. The connection of a slower client is closed; the client reconnects and resumes." default:"262144" range:"1..1073741824"`
	RecentBytes    int `help:"Bytes of memory for recent events of all conversations, from which reconnecting clients are served." default:"67108864" range:"0.."`

	ConnectTimeout        time.Duration `help:"Time limit for the first frame after the WebSocket handshake." default:"10s" range:"1ms..24h"`
	AuthenticationTimeout time.Duration `help:"Time limit from accepting a socket until its client is authenticated, whatever the client does meanwhile; at least connect-timeout." default:"30s" range:"1ms..24h"`
	RequestTimeout        time.Duration `help:"Time limit for a client to send an HTTP request, and to read the answer." default:"10s" range:"1ms..24h"`
	Heartbeat             time.Duration `help:"Interval of heartbeats." default:"25s" range:"1ms..24h"`
	AckTimeout            time.Duration `help:"Time until an unacknowledged event is sent again; doubles with each try." default:"10s" range:"1ms..24h"`
	AckTries              int           `help:"Times an unacknowledged event is sent again before the connection is closed." default:"5" range:"1..100"`
	TokenWarning          time.Duration `help:"Time before a token's expiry at which the client is warned." default:"60s" range:"0..24h"`
	WriteTimeout          time.Duration `help:"Time for a full socket to accept its backlog before the connection is closed." default:"15s" range:"1ms..24h"`
	HistoryTimeout        time.Duration `help:"Time limit for one call of the history service." default:"5s" range:"1ms..24h"`
	Drain                 time.Duration `help:"Longest time over which connections are closed when the gateway stops. It takes precedence over drain-rate; the process needs up to 5s more to exit." default:"10s" range:"0..1h"`
	DrainRate             int           `help:"Clients per second that are moved to other gateways when this one stops. If drain is too short for all of them, clients that are closed early are asked to wait, up to 30s." default:"500" range:"1..1000000"`

	RevocationInterval time.Duration `help:"Interval at which revocations are read from the history service, in case a notice was lost. Notices take effect at once." default:"10s" range:"1ms..24h"`

	ExplainEntries int `help:"Number of steps of events kept in memory for runnel admin explain, 32 bytes each; 0 keeps none. Delivering an event to a connection takes three." default:"196608" range:"0..100000000"`

	ClientTraceRate        float64 `help:"Sampled client traces per second that the gateway continues; commands above that rate start a trace of their own. 0 continues none." default:"100" range:"0..1000000"`
	ClientTraceRatePerUser float64 `help:"Sampled client traces per second of one user that the gateway continues." default:"10" range:"0..1000000"`
}

// mostConnections is the highest default of the connection limit. More connections need more memory than most machines
// have.
const mostConnections = 100_000

// connections returns the connection limit of a gateway that may open this many sockets.
func (c Config) connections(sockets int) int {
	if c.MaxConnections == 0 {
		return min(sockets, mostConnections)
	}
	return c.MaxConnections
}

// Validate checks the settings without listening. It does not change them.
func (c Config) Validate() error {
	if err := settings.CheckRanges("gateway.", c); err != nil {
		return err
	}
	if c.AuthenticationTimeout < c.ConnectTimeout {
		return fmt.Errorf("gateway.authentication-timeout is %v: must be at least gateway.connect-timeout, which is %v", c.AuthenticationTimeout, c.ConnectTimeout)
	}
	if adding := requests.Policy(c.Adding); adding != requests.AddDirect && adding != requests.AddServer {
		return fmt.Errorf("gateway.adding is %q: must be %q or %q", c.Adding, requests.AddDirect, requests.AddServer)
	}
	for _, origin := range c.AllowedOrigins {
		if err := admission.CheckOrigin(origin); err != nil {
			return fmt.Errorf("gateway.allowed-origins: %w", err)
		}
	}
	if _, err := c.proxies(); err != nil {
		return err
	}
	if err := c.TLS.Check(); err != nil {
		return fmt.Errorf("gateway.tls: %w", err)
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
