package gateway

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/time/rate"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// conn is one client connection.
//
//	accepted ──connect frame──▶ connecting ──token and conversations good──▶ open ──▶ closing ──▶ gone
//	    │                           │                                         ▲ frames, pushes
//	    └── no connect in time ─────┴── refused: closed with its code
//
// One goroutine reads. Writing needs none while the socket takes what it is given (see outbox); a filler runs only while a
// seat is behind; calls of history run on goroutines of their own, a few at a time.
type conn struct {
	gw     *Gateway
	id     string
	number uint32          // stands for id in the recorder
	ws     *websocket.Conn // reading only
	raw    net.Conn
	codec  frame.Codec // of the subprotocol
	remote string
	since  time.Time
	done   chan struct{} // closed when the connection is gone

	frames *rate.Limiter // of this connection
	abuse  int           // refusals by rate in a row; the reader's own
	bad    int           // frames that could not be decoded; the reader's own
	early  int           // acknowledgements in a row with a position that does not exist; the reader's own

	// Written once by the reader before state becomes open, read by anybody afterwards.
	user       *user
	device     string
	client     string
	accepted   bool
	noReceipts bool
	events     frame.Codec // how events are encoded: codec, or codec with the bytes of bodies

	state       atomic.Int32
	issued      int64         // unix ms at which the token was issued, 0 for unknown; guarded by Gateway.mu
	calls       atomic.Int32  // calls of history under way
	lastHeard   atomic.Int64  // unix ns of the last frame
	nextBeat    atomic.Int64  // unix ns of the next heartbeat
	expires     atomic.Int64  // unix ms of the token's expiry; 0 for never
	warned      atomic.Bool   // of the token's expiry
	beatPending atomic.Int32  // heartbeats without an answer
	beats       atomic.Uint32 // heartbeats so far

	sendMu    sync.Mutex
	out       outbox
	closeCode errcode.CloseCode // guarded by sendMu

	mu      sync.Mutex
	seats   map[string]*seat // by conversation
	behind  []*seat          // waiting for the filler
	filling bool
	forks   map[string]struct{} // conversations in which the client is on another branch: nothing more is pushed of them
	joins   []string            // conversations joined while connecting
	joining map[string]bool     // conversations being looked up; true when there was another notice meanwhile
}

const (
	stateAccepted int32 = iota
	stateConnecting
	stateOpen
)

const (
	// maxCalls bounds the calls of history that one connection has under way.
	maxCalls = 4
	// maxBadFrames and maxAbuse are how much nonsense, and how many refusals by rate in a row, end a connection.
	maxBadFrames = 10
	maxAbuse     = 200
	// maxEarlyAcks is how many acknowledgements in a row may name an event that does not exist. An honest client that reads ahead
	// of what it is sent may name some that this gateway has not heard of yet.
	maxEarlyAcks = 100
)

// letIn reads until the client is connected, and reports whether it is: read goes on then. Otherwise the connection is gone.
func (c *conn) letIn() bool {
	for c.state.Load() != stateOpen {
		if !c.readMessage() {
			c.gone()
			return false
		}
	}
	return true
}

// read is the connection's one lasting goroutine: it handles frames until the connection ends, then cleans up.
func (c *conn) read() {
	for c.readMessage() {
	}
	c.gone()
}

// readMessage reads and handles one WebSocket message. It reports false when there will be no more.
func (c *conn) readMessage() bool {
	kind, reader, err := c.ws.NextReader()
	if err != nil {
		c.readFailed(err)
		return false
	}
	if kind != c.codec.MessageType() {
		c.close(errcode.CloseProtocol, "wrong kind of WebSocket message for this subprotocol")
		return true
	}
	buffer := c.gw.takeBuffer()
	defer c.gw.buffers.Put(buffer)
	data, err := readAll((*buffer)[:0], reader, c.gw.cfg.MaxFrameBytes)
	*buffer = data[:0]
	switch {
	case errors.Is(err, errTooLarge):
		c.gw.metrics.Limits[metrics.LimitFrameBytes].Inc()
		c.close(errcode.CloseTooLarge, "the message is above the limit")
	case err != nil:
		c.readFailed(err)
		return false
	case !c.isClosing():
		c.handleMessage(data)
	}
	return true
}

var (
	errTooLarge = errors.New("message too large")
	errClosing  = errors.New("the connection is being closed")
)

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
			_, err := io.CopyN(io.Discard, r, 1<<20) // bounded: the connection is being closed
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

// isGone reports whether the connection has ended.
func (c *conn) isGone() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *conn) isClosing() bool {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	return c.out.closing
}

// readFailed notes why reading ended, unless the connection was being closed anyway.
func (c *conn) readFailed(err error) {
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok {
		c.close(errcode.CloseCode(closed.Code), "")
	}
}

// gone takes the connection out of everything. It runs on the reader, last.
func (c *conn) gone() {
	defer c.gw.readers.Done()
	c.sendMu.Lock()
	code := c.closeCode
	c.dropLocked()
	c.sendMu.Unlock()
	close(c.done)

	c.mu.Lock()
	seats := c.seats
	c.seats, c.behind = nil, nil
	c.mu.Unlock()
	if c.user != nil {
		c.gw.closed.Add(flight.Closed{
			User: c.user.id, Device: c.device, ConnectionID: c.id, Number: c.number, OpenedAt: c.since, ClosedAt: time.Now(), Code: code,
			Standings: leftStandings(seats),
		})
	}
	for _, s := range seats {
		c.gw.hub.leave(s)
	}
	c.gw.forget(c, code)
}

// handleMessage decodes one WebSocket message and handles its frames in order.
func (c *conn) handleMessage(data []byte) {
	c.lastHeard.Store(time.Now().UnixNano())
	c.gw.metrics.BytesIn.Add(float64(len(data)))
	for {
		err := frame.DecodeClient(c.codec, data, func(f *clientv1.ClientFrame) error {
			c.gw.metrics.FramesIn.Inc()
			if c.admit(f) {
				c.handle(f)
			}
			if c.isClosing() {
				return errClosing // what follows in the message is no longer heard
			}
			return nil
		})
		bad, isBad := errors.AsType[*frame.Error](err)
		if !isBad {
			return
		}
		// A frame whose id could not be read is answered all the same: its sender may wait for an answer.
		c.sendError(bad.ID, conversationv1.ErrorCode_ERROR_CODE_INVALID, bad.Field, bad.Message)
		if c.bad++; c.bad >= maxBadFrames || c.state.Load() != stateOpen {
			c.close(errcode.CloseProtocol, "frames could not be decoded")
			return
		}
		if data = bad.Rest; len(data) == 0 {
			return
		}
	}
}

// admit applies the connection's frame rate. Pongs and acks above it count as abuse, but are taken: dropping them would
// hurt more.
func (c *conn) admit(f *clientv1.ClientFrame) bool {
	if c.withinRate() {
		return true
	}
	if c.isClosing() {
		return false
	}
	if f.GetAck() != nil || f.GetPong() != nil {
		return true
	}
	c.limited(f.GetId(), "too many frames on this connection")
	return false
}

// withinRate counts one frame, WebSocket pings among them, and closes a connection that keeps exceeding the rate limit.
func (c *conn) withinRate() bool {
	if c.frames.Allow() {
		c.abuse = 0
		return true
	}
	c.gw.metrics.Limits[metrics.LimitFrameRate].Inc()
	if c.abuse++; c.abuse > maxAbuse {
		c.close(errcode.CloseFlood, "too many frames")
	}
	return false
}

// reply sends the answer to a request.
func (c *conn) reply(f *clientv1.ServerFrame) {
	c.send(c.encode(f))
}

// encode makes the ready WebSocket frame of a server frame.
func (c *conn) encode(f *clientv1.ServerFrame) []byte {
	c.gw.metrics.FramesOut.Inc()
	return wrap(c.codec, func(dst []byte) []byte { return frame.AppendServer(dst, c.codec, f) })
}

// wrap makes one WebSocket frame of what fill appends.
func wrap(codec frame.Codec, fill func([]byte) []byte) []byte {
	const header = 10 // the longest; the frame begins where the header, written backwards from the payload, begins
	buf := fill(make([]byte, header, 512))
	size := len(buf) - header
	var head [header]byte
	h := appendFrameHeader(head[:0], codec.MessageType(), size)
	start := header - len(h)
	copy(buf[start:], h)
	return buf[start:]
}

// refuse answers a request with an error. A frame without an id gets no answer.
func (c *conn) refuse(id uint64, code conversationv1.ErrorCode, field, message string) {
	if id == 0 {
		c.gw.metrics.Refused(code)
		return
	}
	c.sendError(id, code, field, message)
}

func (c *conn) sendError(id uint64, code conversationv1.ErrorCode, field, message string) {
	c.gw.metrics.Refused(code)
	c.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
		Code: code, Field: field, Message: message,
	}}})
}

func (c *conn) limited(id uint64, message string) {
	c.gw.metrics.Refused(conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED)
	if id == 0 {
		return
	}
	c.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Error{Error: &conversationv1.Error{
		Code: conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, Message: message, RetryAfterMs: 1000,
	}}})
}

// user is what the connections of one user on this gateway share.
type user struct {
	id       string
	commands *rate.Limiter
	traces   *rate.Limiter      // traces of this user's that are gone on with; nil without tracing
	conns    map[*conn]struct{} // guarded by Gateway.mu
	// revoked is the time up to which issued tokens are refused, unix ms, as far as this gateway has heard; guarded by Gateway.mu.
	revoked int64
}

func (c *conn) setExpiry(claims auth.Claims) {
	if claims.Expires.IsZero() {
		c.expires.Store(0)
	} else {
		c.expires.Store(claims.Expires.UnixMilli())
	}
	c.warned.Store(false)
}
