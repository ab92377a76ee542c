// Package admission decides which connections a gateway accepts: by the number and rate of connections, in total and from one
// address or network, by the origin of web pages, and by whether the gateway is ready. It never authenticates a client and never
// sees a frame.
package admission

import (
	"log/slog"
	"math"
	"net/http"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/pkg/listen"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Config contains the limits of a Gate. All limits are required, except ConnectRate. In these limits, an address is an
// IPv4 address or the /64 prefix of an IPv6 address; a network is the /48 prefix of an IPv6 address.
type Config struct {
	// TrustedProxies is the number of proxies in front that append to X-Forwarded-For; 0 ignores the header.
	TrustedProxies int
	// AllowedOrigins are the web origins of other hosts whose pages may connect; "*" allows all.
	AllowedOrigins           []string
	MaxConnections           int // limit of authenticated clients; package listen limits unauthenticated connections
	MaxConnectionsPerIP      int
	MaxConnectionsPerNetwork int
	ConnectRatePerIP         float64 // connections per second; the burst is ten times this rate
	ConnectRatePerNetwork    float64 // connections per second of a network; the burst is ten times this rate
	ConnectRate              float64 // connections per second of the whole gateway; the burst is twice this rate; 0 means no limit
	Metrics                  *metrics.Metrics
	Log                      *slog.Logger
}

// Gate counts the connections of a gateway. It is open from the start; see Close.
type Gate struct {
	cfg         Config
	ready       func() bool
	connectRate *rate.Limiter // nil allows any rate

	mu            sync.Mutex
	closed        bool
	authenticated int // number of authenticated connections
	addresses     *table
	networks      *table
}

// New makes a gate that refuses every connection until ready returns true.
func New(cfg Config, ready func() bool) *Gate {
	g := &Gate{
		cfg: cfg, ready: ready,
		addresses: newTable(cfg.MaxConnectionsPerIP, cfg.ConnectRatePerIP),
		networks:  newTable(cfg.MaxConnectionsPerNetwork, cfg.ConnectRatePerNetwork),
	}
	if cfg.ConnectRate > 0 {
		g.connectRate = rate.NewLimiter(rate.Limit(cfg.ConnectRate), int(math.Ceil(2*cfg.ConnectRate)))
	}
	return g
}

// Close makes the gate refuse every new connection. It is called when the gateway is being stopped.
func (g *Gate) Close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

// Closed reports whether the gateway is being stopped.
func (g *Gate) Closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// Admit counts a new connection from an address and returns its slot, or returns the reason for the refusal. The caller
// must release the slot.
func (g *Gate) Admit(r *http.Request, remote string) (*Slot, *Refusal) {
	slot, refusal := g.admit(remote)
	if refusal != nil {
		refusal.count(g.cfg.Metrics)
		if refusal.ofAddress {
			g.suspectProxy(r)
		}
	}
	return slot, refusal
}

func (g *Gate) admit(remote string) (*Slot, *Refusal) {
	address, _ := netip.ParseAddr(remote) // all invalid addresses share the limits of one address
	s := &Slot{gate: g, address: listen.AddressOf(address), network: listen.NetworkOf(address)}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, refusedDraining
	case !g.ready():
		return nil, refusedUnready
	case g.authenticated >= g.cfg.MaxConnections:
		return nil, refusedFull
	}
	client, site := g.addresses.peer(s.address), (*peer)(nil)
	if s.network.IsValid() {
		site = g.networks.peer(s.network)
	}
	switch { // check the limits of the address and the network first: otherwise one address could use up the gateway's rate
	case client.connections >= g.addresses.max:
		return nil, refusedAddress
	case site != nil && site.connections >= g.networks.max:
		return nil, refusedNetwork
	case !client.attempts.Allow():
		return nil, refusedRate
	case site != nil && !site.attempts.Allow():
		return nil, refusedNetworkRate
	case g.connectRate != nil && !g.connectRate.Allow():
		return nil, refusedStorm
	}
	g.addresses.enter(client)
	if site != nil {
		g.networks.enter(site)
	}
	return s, nil
}

// Purge removes the addresses that have no connections and whose rate allowance is full again.
func (g *Gate) Purge() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.addresses.purge()
	g.networks.purge()
}

// Slot is the place of one connection.
//
//	Admit ──▶ unauthenticated ──Authenticate──▶ authenticated ──Release──▶ gone
//	                └─────────────────────Release──────────────────────────▲
type Slot struct {
	gate             *Gate
	address, network netip.Prefix

	authenticated, released bool // guarded by Gate.mu
}

// Authenticate counts the connection towards the gateway's limit. It returns false if the limit is reached.
func (s *Slot) Authenticate() bool {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.authenticated >= g.cfg.MaxConnections {
		return false
	}
	g.authenticated++
	s.authenticated = true
	return true
}

// Release ends the connection. Later calls change nothing.
func (s *Slot) Release() {
	g := s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.released {
		return
	}
	s.released = true
	if s.authenticated {
		g.authenticated--
	}
	g.addresses.leave(s.address)
	if s.network.IsValid() {
		g.networks.leave(s.network)
	}
}
