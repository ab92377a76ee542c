package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// guardInterval is how often the embedded server is checked.
	guardInterval = time.Second
	// restartPause is the time between two starts while the disk is still full.
	restartPause = 5 * time.Second
	// writeError is part of the text of the error when a stream could not be written. NATS gives such errors no code.
	writeError = "write error"
)

var (
	errRestarting = errors.New("the embedded NATS server is being restarted")
	errDisabled   = errors.New("JetStream is disabled")
	errNotWritten = errors.New("a stream was not written")
)

// embeddedNATS is the NATS server in this process. When the disk is full, a server disables JetStream, or refuses all
// messages of the streams that it could not write. Both states remain after space is available again. Therefore
// embeddedNATS replaces the server by a new server on the same files. Connections reconnect by themselves.
type embeddedNATS struct {
	start func() (*server.Server, error)
	log   *slog.Logger

	mu      sync.Mutex
	current *server.Server // nil while a server is being replaced
}

// newEmbeddedNATS starts the server.
func newEmbeddedNATS(start func() (*server.Server, error), log *slog.Logger) (*embeddedNATS, error) {
	first, err := start()
	if err != nil {
		return nil, err
	}
	return &embeddedNATS{start: start, log: log, current: first}, nil
}

func (e *embeddedNATS) server() *server.Server {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

func (e *embeddedNATS) set(s *server.Server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current = s
}

// InProcessConn connects to the current server; the NATS client calls it for each connection.
func (e *embeddedNATS) InProcessConn() (net.Conn, error) {
	s := e.server()
	if s == nil {
		return nil, errRestarting
	}
	return s.InProcessConn()
}

// check returns an error if the server does not store messages, with the reason.
func (e *embeddedNATS) check(context.Context) error {
	s := e.server()
	switch {
	case s == nil:
		return errRestarting
	case !s.JetStreamEnabled():
		return errDisabled
	}
	for _, trouble := range s.Healthz(&server.HealthzOptions{Details: true}).Errors {
		// Other errors may come from a stream that is being created, and a restart may not repair them.
		if strings.Contains(trouble.Error, writeError) {
			return fmt.Errorf("%w: %s", errNotWritten, trouble.Error)
		}
	}
	return nil
}

// guard restarts the server whenever it has stopped storing messages, until ctx ends.
func (e *embeddedNATS) guard(ctx context.Context) error {
	ticker := time.NewTicker(guardInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := e.check(ctx); err != nil {
			e.restart(err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(restartPause):
			}
		}
	}
}

// restart replaces the server. If starting the new server fails, guard tries again later.
func (e *embeddedNATS) restart(because error) {
	e.log.Error("the embedded NATS server has stopped storing messages; restarting it. Is the disk of the data directory full?", "error", because)
	e.close()
	next, err := e.start()
	if err != nil {
		e.log.Error("the embedded NATS server does not start; trying again", "error", err)
		return
	}
	e.set(next)
	e.log.Info("the embedded NATS server was restarted")
}

// close stops the server. A second call has no effect.
func (e *embeddedNATS) close() {
	s := e.server()
	if s == nil {
		return
	}
	e.set(nil)
	s.Shutdown()
	s.WaitForShutdown()
}
