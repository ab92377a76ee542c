package websocket

import (
	"errors"
	"net"
	"syscall"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/wire"
)

// socket is the connection below a WebSocket as an outbox writes to it.
type socket struct {
	net.Conn
	plain net.Conn // Conn, or the socket below Conn if a listener wrapped it for counting; a socket writes several buffers in one system call
	try   attempt
}

// init prepares non-blocking writes, if there is a plain socket below. With TLS the writer goroutine does all writing.
func (s *socket) init() {
	s.plain = s.Conn
	if counted, ok := s.Conn.(interface{ Plain() net.Conn }); ok {
		s.plain = counted.Plain()
	}
	if sc, ok := s.plain.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.try.init(raw)
		}
	}
}

// TryWrite implements outbox.Transport.
func (s *socket) TryWrite(data []byte) (rest []byte, err error) { return s.try.write(data) }

// WriteBuffers implements outbox.Transport.
func (s *socket) WriteBuffers(buffers net.Buffers) error {
	_, err := buffers.WriteTo(s.plain)
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
