package httpserver

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// body records whether a request's body was read to its end.
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

// answer is the answer to a request with a body. If the body was not read when the answer begins, the connection is
// closed after the answer: net/http would otherwise read for as long as the client sends.
type answer struct {
	http.ResponseWriter

	body  *body
	begun bool
}

// Unwrap implements the interface that http.ResponseController uses.
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
	_ = http.NewResponseController(a.ResponseWriter).SetReadDeadline(time.Now().Add(unreadTimeout)) // test recorders do not support it
}
