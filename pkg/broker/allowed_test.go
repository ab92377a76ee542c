package broker_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
)

// A service with another one's user is told so, instead of hearing nothing.
func TestAUserThatMayNotListenIsNoticed(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, Users: []*server.User{{
		Username: "gateway", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{broker.JoinedSubject, "_INBOX.>"}}},
	}}})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(10*time.Second))
	nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(),
		nats.InProcessServer(ns), nats.UserInfo("gateway", "p"))
	require.NoError(t, err)
	t.Cleanup(func() {
		nc.Close()
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	_, err = nc.SubscribeSync(broker.JoinedSubject)
	require.NoError(t, err)
	require.NoError(t, broker.Allowed(nc))
	_, err = nc.SubscribeSync(broker.ReleasedSubject)
	require.NoError(t, err, "it is refused later")
	require.ErrorContains(t, broker.Allowed(nc), broker.ReleasedSubject)
}
