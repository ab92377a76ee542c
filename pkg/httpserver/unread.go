package httpserver

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// body notes whether a request's body was read to its end.
type body struct {
	io.ReadCloser

	ended bool
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.ended = true
	}
	return n, err
}

// answer is the answer to a request with a body. If the body has not been read when the answer begins, the connection is closed
// after it: net/http would read on, for as long as the client likes to send.
type answer struct {
	http.ResponseWriter

	body  *body
	begun bool
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.begin()
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(data []byte) (int, error) {
	a.begin()
	return a.ResponseWriter.Write(data)
}

func (a *answer) begin() {
	if a.begun {
		return
	}
	if a.begun = true; a.body.ended {
		return
	}
	a.Header().Set("Connection", "close")
	_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now().Add(unreadTimeout)) // not supported by recorders of tests
}
