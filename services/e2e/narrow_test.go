package e2e_test

import (
	"context"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/services/gateway"
)

// socketBytes is the size of the buffers of a narrow socket. The kernel may take a multiple of it, but no longer chooses.
const socketBytes = 4 << 10

// narrow gives a socket small buffers. It must have them before it is connected: with the handshake, the window is fixed.
func narrow(_, _ string, socket syscall.RawConn) error {
	var refused error
	err := socket.Control(func(fd uintptr) {
		for _, buffer := range []int{syscall.SO_SNDBUF, syscall.SO_RCVBUF} {
			if refused = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, buffer, socketBytes); refused != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	return refused
}

// narrowListener accepts sockets with small buffers.
func narrowListener(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{Control: narrow}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return listener
}

// dialNarrowly connects through a socket with small buffers.
func dialNarrowly(t *testing.T, url string) *raw {
	t.Helper()
	return dialWith(t, &net.Dialer{Control: narrow}, url, frame.JSON)
}

// slowly has a gateway wait for a client as long as it takes: only the length of the queue closes its connection.
func slowly(cfg *gateway.Config) {
	cfg.SendQueueBytes = 64 << 10
	cfg.Heartbeat, cfg.AckTimeout, cfg.WriteTimeout = time.Hour, time.Hour, time.Hour
}
