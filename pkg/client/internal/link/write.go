package link

import (
	"errors"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// write is the writer goroutine: it sends messages and checks timeouts until the connection ends.
func (l *Link) write() {
	// Closing the connection also ends the reader.
	defer l.conn.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var message []byte
	for {
		now := l.checkClock(time.Now())
		if now.silent {
			return
		}
		message, now.due = l.compose(message[:0], now)
		if len(message) > 0 {
			if err := l.conn.WriteMessage(message); err != nil {
				return
			}
			if cap(message) > keepBufferBytes {
				message = nil
			}
			continue
		}
		if now.closing {
			return
		}
		timer.Stop()
		if !now.due.IsZero() {
			timer.Reset(time.Until(now.due))
		}
		select {
		case <-l.wake:
		case <-timer.C:
		case <-l.done:
			return
		}
	}
}

// duty describes the writer's next work.
type duty struct {
	pong, closing, silent bool
	// due is when to check again; zero to wait for a wake-up.
	due time.Time
}

// checkClock ends a connection that is silent or whose reconnect time has come. It returns the writer's next work.
func (l *Link) checkClock(now time.Time) (d duty) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heartbeat > 0 {
		silentAt := l.heard.Add(2 * l.heartbeat)
		l.failLocked(now, silentAt, ErrSilent)
		d.due = Earlier(d.due, silentAt)
	}
	if !l.reconnectAt.IsZero() {
		l.failLocked(now, l.reconnectAt, ErrGoAway)
		d.due = Earlier(d.due, l.reconnectAt)
	}
	d.pong, d.closing, d.silent = l.owesPong, l.closing, errors.Is(l.failure, ErrSilent)
	l.owesPong = false
	return d
}

// failLocked calls Fail if the time at has come.
func (l *Link) failLocked(now, at time.Time, err error) {
	if now.Before(at) {
		return
	}
	if l.failure == nil {
		l.failure = err
	}
	l.closing = true
}

// compose builds the next message, and returns when to check again.
func (l *Link) compose(message []byte, now duty) (_ []byte, due time.Time) {
	frames := protocol.MaxFrames
	if now.pong {
		pong := &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}}
		message = frame.AppendClient(message, l.cfg.Codec, pong)
		frames--
	}
	message, due = l.cfg.Handler.Append(l, message, frames)
	return message, Earlier(now.due, due)
}

// Earlier returns the earlier of two times; zero means never.
func Earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
