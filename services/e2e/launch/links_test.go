package launch_test

import (
	"io"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/proxy"
)

func TestLinksAreFoundFromBothEnds(t *testing.T) {
	s := &launch.Suite{Links: []*launch.Link{
		{From: "nats-0", To: "nats-1"},
		{From: "nats-1", To: "nats-0"},
		{From: "nats-1", To: "nats-2"},
		{From: "gateway-0", To: "nats-1"},
		{From: "gateway-1", To: "nats-1"},
		{From: launch.Clients, To: "gateway-1"},
	}}
	require.Len(t, s.Between("nats-0", "nats-1"), 2)
	require.Len(t, s.Between("nats", "nats-1"), 3)
	require.Len(t, s.Between("nats", "nats"), 3)
	require.Len(t, s.Between("nats", "gateway"), 2)
	require.Len(t, s.Between(launch.Clients, "gateway"), 1)
	require.Empty(t, s.Between("gateway-0", "gateway-1"))
	require.Empty(t, s.Between("gateway-0", launch.Clients))
}

func TestLinksEndWithTheirSuite(t *testing.T) {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer target.Close()
	p, err := proxy.Listen(target.Addr().String())
	require.NoError(t, err)
	s := &launch.Suite{Links: []*launch.Link{{Proxy: p, From: "a", To: "b"}}}
	conn, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	defer conn.Close()
	s.Kill()
	_, err = io.ReadAll(conn)
	require.Error(t, err, "it is reset")
}
