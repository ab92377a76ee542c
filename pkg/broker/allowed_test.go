package broker_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
)

// A service that uses the NATS user of another service gets an error, instead of silently receiving no messages.
func TestAUserThatMayNotListenIsNoticed(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, Users: []*server.User{{
		Username: "gateway", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{broker.JoinedSubject, "_INBOX.>"}}},
	}}})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(30*time.Second))
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

// Operators start NATS with users.conf. In this configuration, the owner of a partition may purge its stream, and
// gateways may not.
func TestOnlyDeliveryMayPurge(t *testing.T) {
	users, err := os.ReadFile(filepath.Join("..", "..", "deploy", "nats", "users.conf"))
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "users.conf"), users, 0o600))
	file := filepath.Join(dir, "nats.conf")
	require.NoError(t, os.WriteFile(file, []byte("include ./users.conf\njetstream { store_dir: \""+dir+"\" }\n"), 0o600))
	as := map[string]nats.Option{}
	for service, variable := range map[string]string{"gateway": "GATEWAY_NKEY", "delivery": "DELIVERY_NKEY"} {
		pair, err := nkeys.CreateUser()
		require.NoError(t, err)
		public, err := pair.PublicKey()
		require.NoError(t, err)
		t.Setenv(variable, public)
		as[service] = nats.Nkey(public, pair.Sign)
	}
	options, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	options.DontListen, options.NoSigs, options.NoLog = true, true, true
	ns, err := server.NewServer(options)
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	require.True(t, ns.ReadyForConnections(30*time.Second))
	connect := func(service string) *nats.Conn {
		nc, err := broker.Connect(broker.Config{}, "runnel-"+service, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nats.InProcessServer(ns), as[service])
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	js, err := jetstream.New(connect("delivery"))
	require.NoError(t, err)
	settings := broker.Config{Partitions: 1, Replicas: 1, MaxBytes: 1 << 20, MaxAge: time.Hour, DuplicateWindow: time.Minute}
	require.NoError(t, broker.EnsureStreams(t.Context(), js, settings))
	gateway := connect("gateway")
	for range 3 {
		_, err := gateway.Request(broker.CommandSubject(0), []byte("command"), 30*time.Second)
		require.NoError(t, err)
	}

	require.NoError(t, gateway.Publish("$JS.API.STREAM.PURGE."+broker.StreamName(0), nil))
	require.NoError(t, gateway.Flush())
	require.ErrorIs(t, gateway.LastError(), nats.ErrPermissionViolation)
	stream, err := js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.Equal(t, uint64(3), stream.CachedInfo().State.Msgs)
	require.NoError(t, stream.Purge(t.Context(), jetstream.WithPurgeSequence(3)))
	info, err := stream.Info(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(3), info.State.FirstSeq)
	require.Error(t, stream.DeleteMsg(t.Context(), 3), "a message deleted in the middle would be a hole")
}
