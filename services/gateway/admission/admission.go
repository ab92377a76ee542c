// Package admission decides which connections a gateway accepts: by the number and rate of connections, in total and from one
// address, by the origin of web pages, and by whether the gateway is ready. It never authenticates a client and never sees a
// frame.
package admission

import (
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Config contains the limits of a Gate. All limits are required, except ConnectRate.
type Config struct {
	// TrustedProxies is the number of proxies in front that append to X-Forwarded-For; 0 ignores the header.
	TrustedProxies int
	// AllowedOrigins are the web origins of other hosts whose pages may connect; "*" allows all.
	AllowedOrigins      []string
	MaxConnections      int
	MaxConnectionsPerIP int
	ConnectRatePerIP    float64 // new connections per second from one address, after a burst of ten times that
	ConnectRate         float64 // new connections per second of the whole gateway, after a burst of twice that; 0 for no limit
	Metrics             *metrics.Metrics
	Log                 *slog.Logger
}

// Gate counts the connections of a gateway. It is open from the start; see Close.
//
//	attempt ──Admit──▶ taken ──Release──▶ gone
//	   └── a *Refusal
type Gate struct {
	cfg         Config
	ready       func() bool
	connectRate *rate.Limiter // nil allows any rate
	suspected   *rate.Limiter // limits the warnings about unknown proxies

	mu     sync.Mutex
	closed bool
	taken  int // number of connections
	peers  map[string]*peer
}

// peer is the count and allowance of one address.
type peer struct {
	connections int
	attempts    *rate.Limiter
}

// maxPeers limits the table of addresses; when it is full, addresses without connections are removed.
const maxPeers = 100_000

// New makes a gate that refuses every connection until ready returns true.
func New(cfg Config, ready func() bool) *Gate {
	g := &Gate{cfg: cfg, ready: ready, suspected: rate.NewLimiter(rate.Every(time.Minute), 1), peers: map[string]*peer{}}
	if cfg.ConnectRate > 0 {
		g.connectRate = rate.NewLimiter(rate.Limit(cfg.ConnectRate), int(math.Ceil(2*cfg.ConnectRate)))
	}
	return g
}

// Close refuses every connection from now on: the gateway is being stopped.
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

// Admit counts a new connection of an address, which must be released, or returns why it is refused.
func (g *Gate) Admit(r *http.Request, remote string) *Refusal {
	refusal := g.admit(remote)
	if refusal != nil {
		refusal.count(g.cfg.Metrics)
		if refusal.ofAddress {
			g.suspectProxy(r)
		}
	}
	return refusal
}

func (g *Gate) admit(remote string) *Refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return refusedDraining
	case !g.ready():
		return refusedUnready
	case g.taken >= g.cfg.MaxConnections:
		return refusedFull
	}
	p := g.peerLocked(remote)
	switch {
	case p.connections >= g.cfg.MaxConnectionsPerIP:
		return refusedAddress
	case !p.attempts.Allow(): // checked before the gateway's own rate; otherwise one address could use that up
		return refusedRate
	case g.connectRate != nil && !g.connectRate.Allow():
		return refusedStorm
	}
	p.connections++
	g.taken++
	return nil
}

func (g *Gate) peerLocked(remote string) *peer {
	if p := g.peers[remote]; p != nil {
		return p
	}
	if len(g.peers) >= maxPeers {
		for address, other := range g.peers {
			if other.connections == 0 {
				delete(g.peers, address)
			}
		}
	}
	p := &peer{attempts: rate.NewLimiter(rate.Limit(g.cfg.ConnectRatePerIP), int(10*g.cfg.ConnectRatePerIP))}
	g.peers[remote] = p
	return p
}

// Release releases one connection of an address. The address stays in the table until its allowance is full again; otherwise a
// client could bypass the rate by closing and reconnecting at once.
func (g *Gate) Release(remote string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := g.peers[remote]
	if p == nil {
		return
	}
	p.connections--
	g.taken--
	g.purgeLocked(remote, p)
}

// Purge removes addresses without connections whose allowance is full again.
func (g *Gate) Purge() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for remote, p := range g.peers {
		g.purgeLocked(remote, p)
	}
}

func (g *Gate) purgeLocked(remote string, p *peer) {
	if p.connections <= 0 && p.attempts.Tokens() >= float64(p.attempts.Burst()) {
		delete(g.peers, remote)
	}
}
