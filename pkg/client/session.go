package client

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// session is one connection and what lives no longer than it. Its fields are guarded by the client's lock, except those that
// are set before its writer starts.
type session struct {
	client *Client
	conn   Conn
	// notBefore is how long the gateway asked to wait when it refused connect.
	notBefore time.Duration
	// wake tells the writer that there is something to do; done that the connection has ended.
	wake chan struct{}
	done chan struct{}

	began     time.Time
	heartbeat time.Duration
	// heard is when the gateway last said anything.
	heard time.Time
	// comeBack is when to be connected anew, after go_away; zero without one.
	comeBack   time.Time
	owesPong   bool
	refreshing bool
	closing    bool
	failure    error
}

// serve handles an authenticated connection until it ends.
func (s *session) serve(ctx context.Context, early []*clientv1.ServerFrame) error {
	c := s.client
	c.mu.Lock()
	c.begin(s, early[0].GetConnected())
	c.mu.Unlock()

	var workers sync.WaitGroup
	defer workers.Wait()
	working, cancel := context.WithCancel(ctx)
	defer cancel()
	workers.Go(s.write)
	// On Close the writer says the last acknowledgements and closes the connection, which ends the reading.
	unwatch := context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		s.closing = true
		s.poke()
	})
	defer unwatch()
	defer func() {
		c.mu.Lock()
		c.lose(s)
		c.mu.Unlock()
		// A writer that is stuck in a write ends with the connection.
		_ = s.conn.Close()
	}()
	handle := func(f *clientv1.ServerFrame) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.GetTokenExpiring() != nil && !s.refreshing {
			s.refreshing = true
			workers.Go(func() { s.refresh(working) })
		}
		return c.handle(s, f)
	}
	for _, f := range early[1:] {
		if err := handle(f); err != nil {
			return err
		}
	}
	for {
		message, err := s.conn.ReadMessage()
		if err == nil {
			err = frame.DecodeServer(c.cfg.Codec, message, handle)
			if err == nil {
				continue
			}
			_ = s.conn.Close()
			return fmt.Errorf("gateway is not understood: %w", err)
		}
		c.mu.Lock()
		failure := s.failure
		c.mu.Unlock()
		if failure != nil {
			return failure
		}
		return s.ending(err, nil)
	}
}

// begin makes an authenticated connection the client's. The lock is held, as in all that follows.
func (c *Client) begin(s *session, connected *clientv1.Connected) {
	s.began = time.Now()
	s.heard = s.began
	s.heartbeat = time.Duration(connected.GetHeartbeatMs()) * time.Millisecond
	c.session = s
	c.userID = connected.GetUserId()
	c.become(Connected)
	c.inbox.Connected(connected)
	if c.stats.Connects++; c.stats.Connects > 1 {
		c.stats.Reconnects++
	}
	c.requests.Connect(int(connected.GetMaxFrameBytes()), connectID)
	c.cfg.Log.Info("connected to a gateway", "connection_id", connected.GetConnectionId(), "user_id", c.userID)
}

// lose parts the client from a connection that ended.
func (c *Client) lose(s *session) {
	c.session = nil
	close(s.done)
	c.inbox.Disconnected()
	c.requests.Disconnect()
}

// handle takes one frame from the gateway; an error ends the connection.
func (c *Client) handle(s *session, f *clientv1.ServerFrame) error {
	if err := inbox.CheckSeqs(f); err != nil {
		return err
	}
	s.heard = time.Now()
	if f.GetId() != 0 {
		c.requests.Answer(f)
		return nil
	}
	switch m := f.GetMessage().(type) {
	case *clientv1.ServerFrame_Accepted:
		c.requests.Accepted(m.Accepted.GetRequestId())
	case *clientv1.ServerFrame_Heartbeat:
		s.owesPong = true
		s.poke()
		c.inbox.Receive(f, s.heard)
	case *clientv1.ServerFrame_GoAway:
		s.comeBack = s.heard.Add(time.Duration(m.GoAway.GetReconnectDelayMs()) * time.Millisecond)
		s.poke()
	default:
		c.inbox.Receive(f, s.heard)
	}
	if c.callbacks.overflows() {
		return errSlow
	}
	return nil
}

// refresh gets a new token for the connection. If that fails, the connection ends with its token, and the next one begins
// with a new one.
func (s *session) refresh(ctx context.Context) {
	c := s.client
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout)
	defer cancel()
	token, err := c.cfg.Token(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		s.refreshing = false
		c.cfg.Log.Warn("could not get a token to refresh the connection", "error", err)
		return
	}
	if c.session != s {
		return
	}
	c.requests.Ask(&request.Request{
		Frame:         &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: token}}},
		OneConnection: true,
		Done: func(_ *clientv1.ServerFrame, err error) {
			s.refreshing = false
			if err != nil {
				c.cfg.Log.Warn("could not refresh the connection's token", "error", err)
			}
		},
	})
}
