package standalone

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

const (
	// guardInterval is how often the embedded server is looked at.
	guardInterval = time.Second
	// restartPause is the time between two starts, while the disk is still full.
	restartPause = 5 * time.Second
)

// embeddedNATS is the NATS server in this process. A server that has met a full disk disables JetStream and does not enable it
// again, so it is replaced by a new one on the same files; connections come back by themselves.
type embeddedNATS struct {
	start func() (*server.Server, error)
	log   *slog.Logger

	mu      sync.Mutex
	current *server.Server // nil between two servers
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

// InProcessConn connects to the present server; the NATS client calls it for each connection.
func (e *embeddedNATS) InProcessConn() (net.Conn, error) {
	s := e.server()
	if s == nil {
		return nil, errors.New("the embedded NATS server is being restarted")
	}
	return s.InProcessConn()
}

// guard restarts the server when it has disabled JetStream, until ctx ends.
func (e *embeddedNATS) guard(ctx context.Context) error {
	ticker := time.NewTicker(guardInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if s := e.server(); s == nil || !s.JetStreamEnabled() {
			e.restart()
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(restartPause):
			}
		}
	}
}

// restart replaces the server. If it fails, there is none, and guard tries again.
func (e *embeddedNATS) restart() {
	e.log.Error("the embedded NATS server has stopped storing messages; restarting it. Is the disk of the data directory full?")
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
