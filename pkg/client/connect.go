package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/inbox"
	"github.com/runnelhq/runnel/pkg/client/internal/request"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	// What a gateway takes at least, for the first connect; later ones know.
	leastFrame = 64 << 10
	// What everything but the token and the positions takes of a connect frame, at most; a position without its id and hash,
	// in either codec; and a hash.
	introduction, positionProto, positionJSON = 1024, 20, 56
	hashProto, hashJSON                       = 10, 24
	// A connection that lived this long was a good one: the next wait begins small again.
	goodConnection = 2 * time.Second
	// The id of the connect request on every connection.
	connectID = 1
)

// connect connects, and connects again, until ctx ends (nil) or the gateway asks to stay away (*ClosedError).
func (c *Client) connect(ctx context.Context) error {
	failures := 0
	for {
		c.mu.Lock()
		c.become(Connecting)
		c.mu.Unlock()
		s := &session{client: c, wake: make(chan struct{}, 1), done: make(chan struct{})}
		err := s.run(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // that the connection ended is what was asked for
		}
		if _, forGood := errors.AsType[*ClosedError](err); forGood {
			return err
		}
		if !s.began.IsZero() && time.Since(s.began) >= goodConnection {
			failures = 0
		}
		wait := max(c.cfg.Backoff.wait(failures), s.notBefore)
		if failures++; !s.comeBack.IsZero() {
			// The gateway has spread its clients already.
			wait, failures = time.Until(s.comeBack), 0
		}
		c.mu.Lock()
		c.become(Waiting)
		c.mu.Unlock()
		c.cfg.Log.Info("not connected to a gateway", "error", err, "next_try_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// run is the life of one connection; the error says why it ended.
func (s *session) run(ctx context.Context) error {
	cfg := &s.client.cfg
	opening, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	token, err := cfg.Token(opening)
	if err != nil {
		return fmt.Errorf("get a token: %w", err)
	}
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", cfg.Codec.Subprotocol())
	if s.conn, err = cfg.Dial(opening, cfg.URL, header); err != nil {
		return err
	}
	defer s.conn.Close()
	// Only closing the connection ends a read.
	unwatch := context.AfterFunc(opening, func() { _ = s.conn.Close() })
	defer unwatch()
	early, err := s.authenticate(token)
	if err != nil {
		return err
	}
	if !unwatch() {
		return fmt.Errorf("connect: %w", opening.Err())
	}
	return s.serve(ctx, early)
}

// authenticate sends connect and waits for the answer. Frames that came in the same message as the answer are given back.
func (s *session) authenticate(token string) (early []*clientv1.ServerFrame, err error) {
	c := s.client
	connect := &clientv1.ClientFrame{Id: connectID, Request: &clientv1.ClientFrame_Connect{Connect: s.introduce(token)}}
	if err := s.conn.WriteMessage(frame.AppendClient(nil, c.cfg.Codec, connect)); err != nil {
		return nil, fmt.Errorf("send connect: %w", err)
	}
	var refusal *RefusedError
	for {
		message, err := s.conn.ReadMessage()
		if err != nil {
			return nil, s.ending(err, refusal)
		}
		err = frame.DecodeServer(c.cfg.Codec, message, func(f *clientv1.ServerFrame) error {
			if answer := f.GetError(); answer != nil && f.GetId() == connectID {
				// The close code that follows says whether to come back.
				refusal = refused(answer)
				s.notBefore = refusal.RetryAfter
				return nil
			}
			if f.GetConnected() != nil || early != nil {
				early = append(early, f)
			}
			return inbox.CheckSeqs(f)
		})
		switch {
		case err != nil:
			return nil, fmt.Errorf("gateway is not understood: %w", err)
		case early != nil:
			return early, nil
		}
	}
}

// introduce makes the connect message out of what the client has.
func (s *session) introduce(token string) *clientv1.Connect {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	start, positions := c.inbox.Connecting()
	return &clientv1.Connect{
		Token: token, DeviceId: c.cfg.DeviceID, Start: start, Resume: positions,
		Accepted: c.cfg.Accepted, NoReceipts: c.cfg.OnReceipt == nil, Client: c.cfg.Software,
		BodyBytes: c.cfg.Codec != frame.Proto && !c.cfg.SkipVerify,
	}
}

// ending makes the error of a connection that was closed.
func (s *session) ending(err error, refusal *RefusedError) error {
	code, reason, told := closeCode(err)
	switch {
	case told && !code.Reconnect():
		return &ClosedError{Code: code, Reason: reason, Refusal: refusal}
	case told:
		return fmt.Errorf("closed by the gateway: %s (%d): %w", code, int(code), err)
	case refusal != nil && refusal.Code == conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED:
		return &ClosedError{Code: errcode.CloseUnauthenticated, Refusal: refusal}
	case refusal != nil && !request.Temporary(refusal.Code):
		return &ClosedError{Code: errcode.CloseProtocol, Refusal: refusal}
	case refusal != nil:
		return fmt.Errorf("connect: %w", refusal)
	}
	return fmt.Errorf("%w: %w", request.ErrConnectionLost, err)
}
