// Package websocket is the link of WebSocket clients (RFC 6455). gorilla/websocket does the handshake and reads. Writes bypass it
// and use the socket directly, because messages of a room are encoded once, with their header, and shared. One goroutine reads a
// link; writing needs none while the socket accepts data.
package websocket

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Config is what a Transport needs. All fields are required.
type Config struct {
	// MaxMessageBytes is the largest message accepted from a connected client, MaxFirstBytes the largest before: that message is not
	// authenticated, so it may be no larger than a connect frame needs.
	MaxMessageBytes, MaxFirstBytes int
	// OriginAllowed decides whether pages of other hosts may connect.
	OriginAllowed func(*http.Request) bool
	Outboxes      *outbox.Shared
	Metrics       *metrics.Metrics
}

// Transport accepts WebSockets. Make it with New, and call WaitForReaders at the end.
type Transport struct {
	cfg Config
	// writeBuffers is what gorilla/websocket takes a buffer from when it writes, which it does for the handshake only.
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
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil { // Upgrade has answered the request
		t.cfg.Metrics.Rejects[metrics.RejectHandshake].Inc()
		return nil
	}
	codec, _ := frame.CodecFor(ws.Subprotocol())
	l := &Link{transport: t, ws: ws, socket: socket{Conn: ws.NetConn()}, encoding: wire.WebSocket(codec), remote: remote}
	l.socket.init()
	l.Init(t.cfg.Outboxes, &l.socket, number)
	return l
}

// Link is one WebSocket.
type Link struct {
	outbox.Outbox

	transport *Transport
	ws        *websocket.Conn // used for reading only
	socket    socket
	encoding  wire.Encoding
	remote    string
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

// readMessage reads one message and passes it on. It returns false if no more messages will come.
func (l *Link) readMessage(receiver link.Receiver) bool {
	kind, reader, err := l.ws.NextReader()
	if err != nil {
		l.readFailed(err)
		return false
	}
	if kind != l.encoding.Codec().MessageType() {
		l.Close(errcode.CloseProtocol, "wrong kind of WebSocket message for this subprotocol")
		return true
	}
	buffers := l.transport.cfg.Outboxes.Buffers
	buffer := buffers.Take()
	defer buffers.Return(buffer)
	data, err := readAll((*buffer)[:0], reader, l.maxMessage(receiver))
	*buffer = data[:0]
	switch {
	case errors.Is(err, errTooLarge):
		l.transport.cfg.Metrics.Limits[metrics.LimitFrameBytes].Inc()
		l.Close(errcode.CloseTooLarge, "the message is above the limit")
	case err != nil:
		l.readFailed(err)
		return false
	case !l.Closing():
		receiver.Receive(data)
	}
	return true
}

func (l *Link) maxMessage(receiver link.Receiver) int {
	if !receiver.Opened() {
		return l.transport.cfg.MaxFirstBytes
	}
	return l.transport.cfg.MaxMessageBytes
}

// readFailed notes why reading ended, unless the link was being closed anyway. A socket that ended without a close frame is lost.
func (l *Link) readFailed(err error) {
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok && closed.Code != websocket.CloseAbnormalClosure {
		l.Close(errcode.CloseCode(closed.Code), "")
	}
}

var errTooLarge = errors.New("message too large")

// readAll reads a message of at most limit bytes into buf. On errTooLarge the rest of the message is discarded.
func readAll(buf []byte, r io.Reader, limit int) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > limit:
			_, err := io.CopyN(io.Discard, r, 1<<20) // bounded: the link is being closed
			if err != nil && !errors.Is(err, io.EOF) {
				return buf, err
			}
			return buf, errTooLarge
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}

// socket is the connection below a WebSocket as an outbox writes to it.
type socket struct {
	net.Conn
	try attempt
}

// init prepares non-blocking writes, if there is a plain socket below. With TLS the writer goroutine does all writing.
func (s *socket) init() {
	if sc, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.try.init(raw)
		}
	}
}

// TryWrite implements outbox.Transport.
func (s *socket) TryWrite(data []byte) (rest []byte, err error) { return s.try.write(data) }

// WriteBuffers implements outbox.Transport.
func (s *socket) WriteBuffers(buffers net.Buffers) error {
	_, err := buffers.WriteTo(s.Conn)
	return err
}

// Goodbye implements outbox.Transport: a close frame.
func (s *socket) Goodbye(code errcode.CloseCode, reason string) []byte {
	return wire.AppendWebSocketFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reason))
}

// attempt is one non-blocking write. It is kept in the link so that a write allocates nothing.
type attempt struct {
	raw  syscall.RawConn
	run  func(fd uintptr) bool
	data []byte
	n    int
	err  error
}

func (a *attempt) init(raw syscall.RawConn) {
	a.raw = raw
	a.run = func(fd uintptr) bool {
		a.n, a.err = syscall.Write(int(fd), a.data)
		return true // never wait here: the writer goroutine waits for a full socket
	}
}

// write writes what the socket accepts at once and returns the rest.
func (a *attempt) write(data []byte) (rest []byte, err error) {
	if a.raw == nil {
		return data, nil
	}
	a.data = data
	err = a.raw.Write(a.run)
	a.data = nil
	switch {
	case err != nil:
		return data, err
	case errors.Is(a.err, syscall.EAGAIN) || errors.Is(a.err, syscall.EINTR):
		return data, nil
	case a.err != nil:
		return data, a.err
	}
	return data[a.n:], nil
}
