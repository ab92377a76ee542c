// Package link is one connection to a gateway: it dials, authenticates, reads frames, writes messages, answers heartbeats and
// detects silence. It knows neither conversations nor commands; a Handler does.
package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// ConnectID is the id of the connect request. Ids of other requests are above it.
const ConnectID = 1

var (
	// ErrSilent means that the gateway sent nothing for two heartbeats.
	ErrSilent = errors.New("no message from the gateway for two heartbeats")
	// ErrGoAway means that the gateway asked the client to reconnect.
	ErrGoAway = errors.New("gateway asked the client to reconnect")
)

// Conn is one connection. One goroutine calls ReadMessage, another one WriteMessage. Any goroutine may call Close.
type Conn interface {
	// ReadMessage returns the next message, valid until the next call. If the gateway closed the connection, the error wraps a
	// *websocket.CloseError of gorilla/websocket.
	ReadMessage() ([]byte, error)
	// WriteMessage sends one message. It must not block forever.
	WriteMessage(message []byte) error
	// Close ends the connection and every call that waits for it. It may be called more than once.
	Close() error
}

// Config is what a Link depends on. All fields are required.
type Config struct {
	Codec frame.Codec
	// ConnectTimeout is the time limit for getting a token, dialling and authenticating.
	ConnectTimeout time.Duration
	Token          func(ctx context.Context) (string, error)
	Dial           func(ctx context.Context) (Conn, error)
	Handler        Handler
}

// Handler handles the frames of a connection. No method is called under the lock of the link.
type Handler interface {
	// ConnectMessage returns the connect message.
	ConnectMessage(token string) *clientv1.Connect
	// Connected handles the answer to connect. Receive, Append and Disconnected are called only after it.
	Connected(l *Link, connected *clientv1.ServerFrame) error
	// Receive handles one frame. An error ends the connection.
	Receive(f *clientv1.ServerFrame, at time.Time) error
	// Append appends the frames to be sent now to a message, at most frames of them. If the link is Closing, this is the
	// last call, and it must append nothing that needs an answer. due is when the next frames become ready without a
	// Wake; zero for never.
	Append(l *Link, message []byte, frames int) (_ []byte, due time.Time)
	// Disconnected is called once when the connection has ended.
	Disconnected()
}

// Link is one attempt to connect, and the connection that results from it:
//
//	        Dial          answer to connect       Fail, ctx ends, silence, go_away
//	new ──────────▶ authenticating ──────▶ connected ──────▶ closing ──▶ ended
//	 └── no token, no connection ┴── refused, timed out ┴── lost ────────▲
type Link struct {
	cfg  Config
	conn Conn
	// wake wakes the writer if there is work. done is closed when the connection has ended.
	wake chan struct{}
	done chan struct{}
	// workers are the writer and the goroutines that Go started. Their context ends with the connection.
	workers sync.WaitGroup
	working context.Context //nolint:containedctx // the lifetime of this connection, passed to the functions given to Go

	// mu guards the following fields. It is never held while the handler or the connection is called.
	mu        sync.Mutex
	heartbeat time.Duration
	// heard is when the gateway last sent a message.
	heard time.Time
	// reconnectAt is when to end the connection after a go_away; zero without go_away.
	reconnectAt time.Time
	owesPong    bool
	closing     bool
	failure     error
}

// End describes how a connection ended.
type End struct {
	// Err is the reason; never nil.
	Err error
	// Connected is when the gateway accepted the connection; zero if it did not accept it.
	Connected time.Time
	// Close describes how the gateway closed the connection; nil if the gateway did not close it.
	Close *Close
	// Refusal is the gateway's answer to connect, if it was an error.
	Refusal *conversationv1.Error
	// ReconnectAt is the time at which the gateway asked the client to reconnect; zero if it did not ask.
	ReconnectAt time.Time
}

// Close describes how a gateway closed a connection.
type Close struct {
	Code   errcode.CloseCode
	Reason string
}

// New makes a link that is not connected.
func New(cfg Config) *Link {
	return &Link{cfg: cfg, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// Run connects, and returns when the connection and all its goroutines have ended. It is called once.
func (l *Link) Run(ctx context.Context) End {
	opening, cancel := context.WithTimeout(ctx, l.cfg.ConnectTimeout)
	defer cancel()
	token, err := l.cfg.Token(opening)
	if err != nil {
		return End{Err: fmt.Errorf("get a token: %w", err)}
	}
	if l.conn, err = l.cfg.Dial(opening); err != nil {
		return End{Err: err}
	}
	defer l.conn.Close()
	// A read ends only when the connection is closed.
	unwatch := context.AfterFunc(opening, func() { _ = l.conn.Close() })
	defer unwatch()
	early, end := l.authenticate(token)
	if early == nil {
		return end
	}
	if !unwatch() {
		return End{Err: fmt.Errorf("connect: %w", opening.Err())}
	}
	return l.serve(ctx, early)
}

// Wake makes the writer check for frames to send.
func (l *Link) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Fail ends the connection, after sending a last message with the frames that Append appends. Only the error of the first
// call is kept.
func (l *Link) Fail(err error) {
	l.mu.Lock()
	if l.failure == nil {
		l.failure = err
	}
	l.closing = true
	l.mu.Unlock()
	l.Wake()
}

// Closing returns true if the connection is about to end.
func (l *Link) Closing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// Go calls f in a goroutine that Run waits for. The context ends with the connection. Go may be called only from Receive.
func (l *Link) Go(f func(ctx context.Context)) {
	l.workers.Go(func() { f(l.working) })
}

// authenticate sends connect and waits for the answer. It returns the answer and the further frames of the same message.
// It returns no frames if the connection has ended.
func (l *Link) authenticate(token string) (early []*clientv1.ServerFrame, end End) {
	connect := &clientv1.ClientFrame{
		Id: ConnectID, Request: &clientv1.ClientFrame_Connect{Connect: l.cfg.Handler.ConnectMessage(token)},
	}
	if err := l.conn.WriteMessage(frame.AppendClient(nil, l.cfg.Codec, connect)); err != nil {
		return nil, End{Err: fmt.Errorf("send connect: %w", err)}
	}
	var refusal *conversationv1.Error
	for {
		message, err := l.conn.ReadMessage()
		if err != nil {
			end := ended(err)
			end.Refusal = refusal
			return nil, end
		}
		err = frame.DecodeServer(l.cfg.Codec, message, func(f *clientv1.ServerFrame) error {
			if answer := f.GetError(); answer != nil && f.GetId() == ConnectID {
				refusal = answer // whether to reconnect depends on the close code that follows
			} else if f.GetConnected() != nil || early != nil {
				early = append(early, f)
			}
			return nil
		})
		switch {
		case err != nil:
			return nil, notUnderstood(err)
		case early != nil:
			return early, End{}
		}
	}
}

// serve handles an authenticated connection until it ends.
func (l *Link) serve(ctx context.Context, early []*clientv1.ServerFrame) (end End) {
	connected, began := early[0].GetConnected(), time.Now()
	l.heard, l.heartbeat = began, time.Duration(connected.GetHeartbeatMs())*time.Millisecond
	if err := l.cfg.Handler.Connected(l, early[0]); err != nil {
		return notUnderstood(err)
	}
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		end.Connected, end.ReconnectAt = began, l.reconnectAt
	}()
	working, cancel := context.WithCancel(ctx)
	l.working = working
	defer l.workers.Wait()
	defer cancel()
	l.workers.Go(l.write)
	// When ctx ends, the writer sends the last message and closes the connection, which ends the reader.
	unwatch := context.AfterFunc(ctx, func() { l.Fail(context.Cause(ctx)) })
	defer unwatch()
	defer func() {
		l.cfg.Handler.Disconnected()
		close(l.done)
		// Closing the connection also ends a writer that is stuck in a write.
		_ = l.conn.Close()
	}()
	return l.read(early[1:])
}

// read handles frames until the connection ends.
func (l *Link) read(early []*clientv1.ServerFrame) End {
	for _, f := range early {
		if err := l.receive(f, l.heard); err != nil {
			return notUnderstood(err)
		}
	}
	for {
		message, err := l.conn.ReadMessage()
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.failure != nil {
				return End{Err: l.failure}
			}
			return ended(err)
		}
		now := time.Now()
		l.mu.Lock()
		l.heard = now
		l.mu.Unlock()
		if err := frame.DecodeServer(l.cfg.Codec, message, func(f *clientv1.ServerFrame) error { return l.receive(f, now) }); err != nil {
			return notUnderstood(err)
		}
	}
}

// receive handles one frame.
func (l *Link) receive(f *clientv1.ServerFrame, at time.Time) error {
	if f.GetId() == 0 {
		switch m := f.GetMessage().(type) {
		case *clientv1.ServerFrame_Heartbeat:
			l.mu.Lock()
			l.owesPong = true
			l.mu.Unlock()
			l.Wake()
		case *clientv1.ServerFrame_GoAway:
			l.mu.Lock()
			l.reconnectAt = at.Add(time.Duration(m.GoAway.GetReconnectDelayMs()) * time.Millisecond)
			l.mu.Unlock()
			l.Wake()
		}
	}
	return l.cfg.Handler.Receive(f, at)
}

// ended describes the end of a connection after a read error.
func ended(err error) End {
	if closed := closeOf(err); closed != nil {
		return End{Err: fmt.Errorf("closed by the gateway: %s (%d): %w", closed.Code, int(closed.Code), err), Close: closed}
	}
	return End{Err: fmt.Errorf("connection was lost: %w", err)}
}

func notUnderstood(err error) End {
	return End{Err: fmt.Errorf("could not handle a message of the gateway: %w", err)}
}
