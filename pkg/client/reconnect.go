package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/runnelhq/runnel/pkg/client/internal/link"
)

// goodConnection is how long a connection must live to reset the backoff.
const goodConnection = 2 * time.Second

// keepConnected connects and reconnects until ctx ends (nil) or the gateway asks the client to stay away (*ClosedError).
func (s *session) keepConnected(ctx context.Context) error {
	failures := 0
	for {
		s.become(Connecting)
		end := link.New(link.Config{
			Codec: s.cfg.Codec, ConnectTimeout: s.cfg.ConnectTimeout, Token: s.cfg.Token, Dial: s.dial, Handler: s,
		}).Run(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of the connection was requested
		}
		err := endError(end)
		if _, forGood := errors.AsType[*ClosedError](err); forGood {
			return err
		}
		if !end.Connected.IsZero() && time.Since(end.Connected) >= goodConnection {
			failures = 0
		}
		wait := max(s.cfg.Backoff.wait(failures), retryAfter(end.Refusal))
		if failures++; !end.ReconnectAt.IsZero() {
			// The gateway has already chosen a reconnect time to spread its clients.
			wait, failures = time.Until(end.ReconnectAt), 0
		}
		s.become(Waiting)
		s.cfg.Log.Info("not connected to a gateway", "error", err, "next_try_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// dial opens a connection for the codec.
func (s *session) dial(ctx context.Context) (link.Conn, error) {
	header := http.Header{}
	header.Set("Sec-WebSocket-Protocol", s.cfg.Codec.Subprotocol())
	return s.cfg.Dial(ctx, s.cfg.URL, header)
}

// endError returns why a connection ended: a *ClosedError if the client must not reconnect. Only the close code decides
// this. A refusal of connect does not decide it, for two reasons: an expired token and too many connections are refused
// with the same error codes as permanent conditions, and the close code after the refusal may be lost.
func endError(end link.End) error {
	var refusal *RefusedError
	if end.Refusal != nil {
		refusal = refused(end.Refusal)
	}
	switch {
	case end.Close != nil && !end.Close.Code.Reconnect():
		return &ClosedError{Code: end.Close.Code, Reason: end.Close.Reason, Refusal: refusal}
	case end.Close != nil || refusal == nil:
		return end.Err
	}
	return fmt.Errorf("connect: %w", refusal)
}
