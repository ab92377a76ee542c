package client

import (
	"errors"
	"time"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// poke tells the writer that there is something to do.
func (s *session) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail ends the connection for a reason of ours.
func (s *session) fail(err error) {
	if s.failure == nil {
		s.failure = err
	}
	s.closing = true
}

// write is the writer: it sends what is there to be sent and watches the clock, until the connection ends.
func (s *session) write() {
	// Closing ends the reader, too.
	defer s.conn.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var buf []byte
	for {
		s.client.mu.Lock()
		next := s.tick(time.Now())
		buf = s.collect(buf[:0])
		closing, silent := s.closing, errors.Is(s.failure, errSilent)
		s.client.mu.Unlock()
		if silent {
			return
		}
		if len(buf) > 0 {
			if err := s.conn.WriteMessage(buf); err != nil {
				return
			}
			if cap(buf) > keepBufferBytes {
				buf = nil
			}
			continue
		}
		if closing {
			return
		}
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
		select {
		case <-s.wake:
		case <-timer.C:
		case <-s.done:
			return
		}
	}
}

// tick does what is due and tells when to look again; zero for when it is poked. The lock is held, as in all that follows.
func (s *session) tick(now time.Time) (next time.Time) {
	c := s.client
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	sooner(c.requests.Due())
	sooner(c.inbox.AckDue())
	if s.heartbeat > 0 {
		silent := s.heard.Add(2 * s.heartbeat)
		if !now.Before(silent) {
			s.fail(errSilent)
		}
		sooner(silent)
	}
	if !s.comeBack.IsZero() {
		if !now.Before(s.comeBack) {
			s.fail(errLeft)
		}
		sooner(s.comeBack)
	}
	return next
}

// collect encodes one message of what is to be sent now.
func (s *session) collect(buf []byte) []byte {
	c, codec, frames := s.client, s.client.cfg.Codec, 0
	if s.owesPong {
		s.owesPong = false
		buf = frame.AppendClient(buf, codec, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
		frames++
	}
	if due := c.inbox.AckDue(); !due.IsZero() && (s.closing || !time.Now().Before(due)) {
		buf = frame.AppendClient(buf, codec, &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: c.inbox.TakeAck()}})
		frames++
	}
	if !s.closing {
		buf = c.requests.Append(buf, protocol.MaxFrames-frames)
	}
	return buf
}
