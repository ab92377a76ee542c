package websocket

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// hijacker makes gorilla/websocket use an input instead of the connection.
type hijacker struct {
	http.ResponseWriter

	input *input
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("hijack the connection: %w", err)
	}
	h.input = &input{Conn: conn}
	return h.input, buffered, nil
}

// errSpent ends reading when the client has sent more than it may.
var errSpent = errors.New("more bytes than the client may send")

// input wraps the connection for gorilla/websocket. After the handshake Write discards its data: gorilla/websocket would
// write close frames of its own from the reader, in the middle of our writes. Only one goroutine reads.
type input struct {
	net.Conn

	upgraded bool  // the handshake is done
	metered  bool  // Read returns at most budget more bytes
	budget   int64 // bytes left
	failed   error // the first error of the connection itself
}

// Read implements net.Conn.
func (i *input) Read(b []byte) (int, error) {
	if i.metered {
		if i.budget <= 0 {
			return 0, errSpent
		}
		b = b[:min(int64(len(b)), i.budget)]
	}
	n, err := i.Conn.Read(b)
	i.budget -= int64(n)
	if err != nil && i.failed == nil {
		i.failed = err
	}
	return n, err
}

// Write implements net.Conn.
func (i *input) Write(b []byte) (int, error) {
	if i.upgraded {
		return len(b), nil
	}
	return i.Conn.Write(b)
}

// meter limits the client to this many bytes from now on.
func (i *input) meter(bytes int64) { i.metered, i.budget = true, bytes }

// unmeter removes the limit of meter.
func (i *input) unmeter() { i.metered = false }
