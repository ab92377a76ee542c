// Package httpserver makes HTTP servers with deadlines for everything: the header, the body, the answer, and the time
// between two requests. It contains no handlers. Package listen limits the number of connections.
package httpserver

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/runnelhq/runnel/pkg/listen"
)

const (
	// maxHeaderTimeout limits the time for the header of a request and for a TLS handshake.
	maxHeaderTimeout = 5 * time.Second
	maxHeaderBytes   = 16 << 10
	// unreadTimeout is how long the rest of an unread body is read after the answer. If a socket is closed with bytes
	// unread, some systems drop the answer that was sent before.
	unreadTimeout = time.Second
)

// Config configures a server.
type Config struct {
	// Log receives errors of clients, at debug level, because clients decide how many there are. Required.
	Log *slog.Logger
	// RequestTimeout limits the time for a whole request, and for its answer. Required.
	RequestTimeout time.Duration
	// IdleTimeout limits the time between two requests of a connection. Required.
	IdleTimeout time.Duration
	// AnswerTimeout returns the time limit for the answer of a request, from the end of its header. Defaults to
	// RequestTimeout.
	AnswerTimeout func(*http.Request) time.Duration
}

// New makes a server. Its handlers may call listen.Authenticated.
func New(handler http.Handler, cfg Config) *http.Server {
	if cfg.AnswerTimeout == nil {
		cfg.AnswerTimeout = func(*http.Request) time.Duration { return cfg.RequestTimeout }
	}
	return &http.Server{
		Handler:           bounded(handler, cfg.AnswerTimeout),
		ReadHeaderTimeout: min(cfg.RequestTimeout, maxHeaderTimeout), ReadTimeout: cfg.RequestTimeout, IdleTimeout: cfg.IdleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: errorLog(cfg.Log), ConnContext: listen.Context,
	}
}

// bounded gives each answer a deadline. It closes the connection of a client whose request body was not read. It does not
// use http.Server.WriteTimeout, because net/http/pprof refuses profiles that take longer than that.
func bounded(next http.Handler, timeout func(*http.Request) time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout(r))) // test recorders do not support it
		if r.ContentLength == 0 {
			next.ServeHTTP(w, r)
			return
		}
		b := &body{ReadCloser: r.Body}
		r.Body = b
		answer := &answer{ResponseWriter: w, body: b}
		next.ServeHTTP(answer, r)
		answer.begin()
	})
}
