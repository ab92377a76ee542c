package gateway

import (
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
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
	if status, reason := g.admitPeer(remote); status != 0 {
		g.metrics.refused(reason)
		w.Header().Set("Retry-After", "1")
		http.Error(w, reason, status)
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
		http.Error(w, "name the WebSocket subprotocol "+strings.Join(frame.Subprotocols(), " or "), http.StatusBadRequest)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		g.refusePeer(remote) // Upgrade has answered
		g.metrics.refused("handshake")
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
		gw: g, id: uuid.NewString(), ws: ws, raw: ws.NetConn(), codec: codec, remote: remote, since: now,
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
	g.conns[c.id] = c
	count := len(g.conns)
	g.readers.Add(1)
	g.mu.Unlock()
	g.metrics.connections.Set(float64(count))
	g.metrics.connects.Inc()
	// The handler's stack has grown in net/http and grows more while the client is let in; a stack shrinks only when the
	// collector comes by. The lasting reader begins with a small one of its own.
	if c.letIn() {
		go c.read()
	}
}

// goAway asks the client to reconnect elsewhere, not all at the same moment, and closes the connection.
func (c *conn) goAway() {
	delay := rand.N(uint32(1000))
	c.send(c.encode(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_GoAway{GoAway: &clientv1.GoAway{ReconnectDelayMs: delay}}}))
	c.close(errcode.CloseGoingAway, "the gateway is being stopped")
}

// remote is the client's address without port: the peer's, or what the trusted proxies in front say.
func (g *Gateway) remote(r *http.Request) string {
	if n := g.cfg.TrustedProxies; n > 0 {
		hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
		if len(hops) >= n {
			if ip := net.ParseIP(strings.TrimSpace(hops[len(hops)-n])); ip != nil {
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

// admitPeer counts a new connection of an address, or gives the HTTP status and the reason to refuse it.
func (g *Gateway) admitPeer(remote string) (status int, reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.draining {
		return http.StatusServiceUnavailable, "the gateway is being stopped"
	}
	if len(g.conns) >= g.cfg.MaxConnections {
		return http.StatusServiceUnavailable, "the gateway is full"
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
		return http.StatusTooManyRequests, "too many connections from this address"
	case !p.attempts.Allow():
		return http.StatusTooManyRequests, "too many new connections from this address"
	}
	p.conns++
	return 0, ""
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
