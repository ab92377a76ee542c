// Package websocket is the link of WebSocket clients (RFC 6455). gorilla/websocket does the handshake and reads. Writes
// bypass it and go to the socket directly, because a message of a room is encoded once, with its frame header, and shared
// by all links. Each link has one reading goroutine. It needs a writing goroutine only while the socket accepts no data.
package websocket

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Config is what a Transport needs. All fields are required.
type Config struct {
	// MaxMessageBytes is the largest message accepted from a connected client. MaxFirstBytes is the largest message
	// accepted before: the client is not authenticated yet, so a message may be no larger than a connect frame needs.
	MaxMessageBytes, MaxFirstBytes int
	// OriginAllowed decides whether pages of other hosts may connect.
	OriginAllowed func(*http.Request) bool
	// Strangers limits the memory for messages of clients that are not connected yet.
	Strangers *Budget
	Outboxes  *outbox.Shared
	Metrics   *metrics.Metrics
}

// Transport accepts WebSockets. Make it with New, and call WaitForReaders at the end.
type Transport struct {
	cfg Config
	// writeBuffers is the pool of write buffers for gorilla/websocket, which writes only the handshake.
	writeBuffers sync.Pool

	mu      sync.Mutex
	stopped bool
	readers sync.WaitGroup
}

// New makes a transport.
func New(cfg Config) *Transport { return &Transport{cfg: cfg} }

// WaitForReaders refuses further links, and waits for the readers of existing ones. They end when their sockets are closed.
func (t *Transport) WaitForReaders() {
	t.mu.Lock()
	t.stopped = true
	t.mu.Unlock()
	t.readers.Wait()
}

func (t *Transport) begin() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.stopped {
		return false
	}
	t.readers.Add(1)
	return true
}

// Accept upgrades a request. If it returns nil, it has answered the request and counted the reason.
func (t *Transport) Accept(w http.ResponseWriter, r *http.Request, remote string, number uint32) *Link {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: 5 * time.Second,
		ReadBufferSize:   512, // kept as long as the link lives; most messages fit into it
		WriteBufferSize:  1024,
		WriteBufferPool:  &t.writeBuffers,
		Subprotocols:     frame.Subprotocols(),
		CheckOrigin:      t.cfg.OriginAllowed,
	}
	if !slices.ContainsFunc(websocket.Subprotocols(r), func(p string) bool { _, ok := frame.CodecFor(p); return ok }) {
		t.cfg.Metrics.Rejects[metrics.RejectSubprotocol].Inc()
		http.Error(w, "name the WebSocket subprotocol "+strings.Join(frame.Subprotocols(), " or "), http.StatusBadRequest)
		return nil
	}
	hijacker := &hijacker{ResponseWriter: w}
	ws, err := upgrader.Upgrade(hijacker, r, nil)
	if err != nil { // Upgrade has answered the request
		t.cfg.Metrics.Rejects[metrics.RejectHandshake].Inc()
		return nil
	}
	hijacker.input.upgraded = true
	codec, _ := frame.CodecFor(ws.Subprotocol())
	l := &Link{transport: t, ws: ws, input: hijacker.input, socket: socket{Conn: hijacker.input.Conn}, encoding: wire.WebSocket(codec), remote: remote}
	l.socket.init()
	l.Init(t.cfg.Outboxes, &l.socket, number)
	return l
}

// Link is one WebSocket.
type Link struct {
	outbox.Outbox

	transport *Transport
	ws        *websocket.Conn // used for reading only
	input     *input          // below ws
	socket    socket
	encoding  wire.Encoding
	remote    string
	lingering bool // the link is being closed, and reading has its last budget; used by the reader only
}

// Describe implements link.Link.
func (l *Link) Describe() link.Description {
	return link.Description{Encoding: l.encoding, Remote: l.remote, QueuedBytes: l.QueuedBytes()}
}

// Serve implements link.Link. It returns once the client is connected, or the link has ended.
func (l *Link) Serve(receiver link.Receiver) {
	if !l.transport.begin() {
		receiver.Ended(l.End())
		return
	}
	// gorilla/websocket would answer control frames itself, in the middle of our writes.
	l.ws.SetPingHandler(func(data string) error {
		if receiver.AllowControl() {
			l.Queue(wire.AppendWebSocketFrame(nil, websocket.PongMessage, []byte(data)))
			l.Flush()
		}
		return nil
	})
	l.ws.SetPongHandler(func(string) error {
		receiver.AllowControl() // an unsolicited pong counts towards the limit too
		return nil
	})
	l.ws.SetCloseHandler(func(int, string) error { return nil })
	for !receiver.Opened() {
		if !l.readMessage(receiver) {
			l.end(receiver)
			return
		}
	}
	// The handler's stack has grown in net/http and grows more during the handshake of the session; a stack shrinks only at a
	// garbage collection. The long-lived reader therefore starts with a small stack of its own.
	go func() {
		for l.readMessage(receiver) {
		}
		l.end(receiver)
	}()
}

func (l *Link) end(receiver link.Receiver) {
	defer l.transport.readers.Done()
	receiver.Ended(l.End())
}
