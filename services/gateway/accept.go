package gateway

import (
	"net/http"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// accept upgrades one HTTP request to a connection, or says why not.
func (g *Gateway) accept(w http.ResponseWriter, r *http.Request) {
	remote := g.gate.Remote(r)
	if refusal := g.gate.Admit(r, remote); refusal != nil {
		refusal.Answer(w)
		return
	}
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   512, // held for as long as the connection lives; most frames fit
		WriteBufferSize:  1024,
		WriteBufferPool:  &g.writeBuffers,
		Subprotocols:     frame.Subprotocols(),
		CheckOrigin:      g.gate.OriginAllowed,
	}
	if !slices.ContainsFunc(websocket.Subprotocols(r), func(p string) bool { _, ok := frame.CodecFor(p); return ok }) {
		g.gate.Release(remote)
		g.metrics.Rejects[metrics.RejectSubprotocol].Inc()
		http.Error(w, "name the WebSocket subprotocol "+strings.Join(frame.Subprotocols(), " or "), http.StatusBadRequest)
		return
	}
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		g.gate.Release(remote) // Upgrade has answered
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
	if g.gate.Closed() {
		g.mu.Unlock()
		g.gate.Release(remote)
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
