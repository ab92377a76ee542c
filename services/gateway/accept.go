package gateway

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// peer is what is known of one address.
type peer struct {
	conns    int
	attempts *rate.Limiter
}

// maxPeers bounds the table of addresses; when it is full, those without connections make room.
const maxPeers = 100_000

// accept upgrades one HTTP request to a connection, or says why not.
func (g *Gateway) accept(w http.ResponseWriter, r *http.Request) {
	remote := g.remote(r)
	if refusal := g.admitPeer(remote); refusal != nil {
		refusal.count(g.metrics)
		if refusal.ofAddress {
			g.suspectProxy(r)
		}
		// Not all in the same second: who is refused now would be refused together again.
		w.Header().Set("Retry-After", strconv.Itoa(1+rand.N(5)))
		http.Error(w, refusal.reason, refusal.status)
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   512, // held for as long as the connection lives; most frames fit
		WriteBufferSize:  1024,
		WriteBufferPool:  &g.writeBuffers,
		Subprotocols:     frame.Subprotocols(),
		CheckOrigin:      g.originAllowed,
	}
	if !slices.ContainsFunc(websocket.Subprotocols(r), func(p string) bool { _, ok := frame.CodecFor(p); return ok }) {
		g.refusePeer(remote)
		g.metrics.Rejects[metrics.RejectSubprotocol].Inc()
		http.Error(w, "name the WebSocket subprotocol "+strings.Join(frame.Subprotocols(), " or "), http.StatusBadRequest)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		g.refusePeer(remote) // Upgrade has answered
		g.metrics.Rejects[metrics.RejectHandshake].Inc()
		return
	}
	codec, _ := frame.CodecFor(ws.Subprotocol())
	g.start(ws, codec, remote)
}

// start makes the connection and its reader.
func (g *Gateway) start(ws *websocket.Conn, codec frame.Codec, remote string) {
	now := time.Now()
	burst := int(10 * g.cfg.FrameRate)
	c := &conn{
		gw: g, id: uuid.NewString(), ws: ws, raw: ws.NetConn(), codec: codec, events: codec, remote: remote, since: now,
		done: make(chan struct{}), frames: rate.NewLimiter(rate.Limit(g.cfg.FrameRate), burst),
	}
	c.lastHeard.Store(now.UnixNano())
	if sc, ok := c.raw.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.out.try.init(raw)
		}
	}
	// gorilla/websocket would answer control frames itself, in the middle of our writes.
	ws.SetPingHandler(func(data string) error {
		if c.withinRate() {
			c.send(appendFrame(nil, websocket.PongMessage, []byte(data)))
		}
		return nil
	})
	ws.SetCloseHandler(func(int, string) error { return nil })

	g.mu.Lock()
	if g.draining {
		g.releasePeer(remote)
		g.mu.Unlock()
		_ = ws.Close()
		return
	}
	g.accepted++
	c.number = g.accepted
	g.conns[c.id] = c
	count := len(g.conns)
	g.readers.Add(1)
	g.mu.Unlock()
	g.metrics.Connections.Set(float64(count))
	g.metrics.Connects.Inc()
	// The handler's stack has grown in net/http and grows more while the client is let in; a stack shrinks only when the
	// collector comes by. The lasting reader begins with a small one of its own.
	if c.letIn() {
		go c.read()
	}
}

// remote is the client's address without port: the peer's, or what the trusted proxies in front say. Each of them appends
// who it was called by; what is further left anybody could have written.
func (g *Gateway) remote(r *http.Request) string {
	if n := g.cfg.TrustedProxies; n > 0 {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if len(hops) >= n {
			hop := strings.TrimSpace(hops[len(hops)-n])
			if host, _, err := net.SplitHostPort(hop); err == nil {
				hop = host // some proxies write the port as well
			}
			if ip := net.ParseIP(strings.Trim(hop, "[]")); ip != nil {
				return ip.String()
			}
		}
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// originAllowed keeps pages of other sites from connecting with what their visitors' browsers know. Programs that are no
// browsers send no Origin.
func (g *Gateway) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	for _, allowed := range g.cfg.AllowedOrigins {
		if allowed == "*" || strings.EqualFold(allowed, origin) {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// refusal is why a connection is not taken.
type refusal struct {
	status    int
	reason    string
	because   metrics.Reject
	limit     metrics.Limit // with metrics.RejectLimit
	ofAddress bool          // the limit is one of an address
}

var (
	refusedUnready  = &refusal{http.StatusServiceUnavailable, "the gateway is not ready", metrics.RejectUnavailable, 0, false}
	refusedDraining = &refusal{http.StatusServiceUnavailable, "the gateway is being stopped", metrics.RejectDraining, 0, false}
	refusedFull     = &refusal{http.StatusServiceUnavailable, "the gateway is full", metrics.RejectLimit, metrics.LimitConnections, false}
	refusedStorm    = &refusal{http.StatusServiceUnavailable, "too many new connections at once", metrics.RejectLimit, metrics.LimitConnectRate, false}
	refusedAddress  = &refusal{http.StatusTooManyRequests, "too many connections from this address", metrics.RejectLimit, metrics.LimitIPConnections, true}
	refusedRate     = &refusal{http.StatusTooManyRequests, "too many new connections from this address", metrics.RejectLimit, metrics.LimitIPConnectRate, true}
)

func (r *refusal) count(m *metrics.Metrics) {
	m.Rejects[r.because].Inc()
	if r.because == metrics.RejectLimit {
		m.Limits[r.limit].Inc()
	}
}

// suspectProxy tells the operator when it looks as if clients came through a proxy that is not known here: then all of them
// seem to have one address, and share its limits.
func (g *Gateway) suspectProxy(r *http.Request) {
	if g.cfg.TrustedProxies == 0 && r.Header.Get("X-Forwarded-For") != "" && g.suspected.Allow() {
		g.log.Warn("connections through a proxy are refused by the limits for one address; count the proxies in --gateway.trusted-proxies",
			"proxy", r.RemoteAddr)
	}
}

// admitPeer counts a new connection of an address, or says why it is refused.
func (g *Gateway) admitPeer(remote string) *refusal {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return refusedDraining
	}
	if g.level() == 0 {
		return refusedUnready
	}
	if len(g.conns) >= g.cfg.MaxConnections {
		return refusedFull
	}
	p := g.peers[remote]
	if p == nil {
		if len(g.peers) >= maxPeers {
			for address, other := range g.peers {
				if other.conns == 0 {
					delete(g.peers, address)
				}
			}
		}
		p = &peer{attempts: rate.NewLimiter(rate.Limit(g.cfg.ConnectRatePerIP), int(10*g.cfg.ConnectRatePerIP))}
		g.peers[remote] = p
	}
	switch {
	case p.conns >= g.cfg.MaxConnectionsPerIP:
		return refusedAddress
	case !p.attempts.Allow(): // before the gateway's own rate, or one address could use that up
		return refusedRate
	case g.connectRate != nil && !g.connectRate.Allow():
		return refusedStorm
	}
	p.conns++
	return nil
}

func (g *Gateway) refusePeer(remote string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.releasePeer(remote)
}

// releasePeer forgets one connection of an address. The address stays in the table while its allowance is not full
// again, or closing and connecting at once would get around the rate. Callers hold mu.
func (g *Gateway) releasePeer(remote string) {
	p := g.peers[remote]
	if p == nil {
		return
	}
	if p.conns--; p.conns <= 0 && p.attempts.Tokens() >= float64(p.attempts.Burst()) {
		delete(g.peers, remote)
	}
}
