package websocket

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// hijacker gives gorilla/websocket an input in place of the connection.
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

// input is the connection as gorilla/websocket sees it. After the handshake it can only be read: gorilla/websocket would write
// close frames of its own from the reader, in the middle of our writes. Reading is used by one goroutine only.
type input struct {
	net.Conn

	upgraded bool  // the handshake is done
	metered  bool  // Read may return budget bytes
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

// meter lets the client send so many bytes from now on.
func (i *input) meter(bytes int64) { i.metered, i.budget = true, bytes }

// unmeter lets the client send any number of bytes.
func (i *input) unmeter() { i.metered = false }
