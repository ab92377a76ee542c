package gateway

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func TestAGatewayThatDoesNotFitDoesNotStart(t *testing.T) {
	for name, c := range map[string]struct {
		store *fakeStore
		says  string
	}{
		"partitions":  {&fakeStore{partitions: 16, level: 1}, "--nats.partitions is 4 here and 16"},
		"a new level": {&fakeStore{partitions: 4, level: uint32(conversation.MaxLevel()) + 1}, "the level never falls"},
	} {
		t.Run(name, func(t *testing.T) {
			var cfg Config
			parser, err := kong.New(&cfg)
			require.NoError(t, err)
			_, err = parser.Parse([]string{"--listen=127.0.0.1:0"})
			require.NoError(t, err)
			g, err := New(cfg, Deps{Partitions: 4, History: c.store, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry()})
			require.NoError(t, err)
			err = g.Run(t.Context())
			require.ErrorIs(t, err, ErrMismatch)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// A gateway with another service's nkey hears nothing: it must not be ready for a moment, or a rollout goes on.
func TestAGatewayThatMayNotListenIsNeverReady(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, Users: []*server.User{{
		Username: "delivery", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{broker.JoinedSubject}}},
	}}})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(10*time.Second))
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(),
		nats.InProcessServer(ns), nats.UserInfo("delivery", "p"))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	var cfg Config
	parser, err := kong.New(&cfg)
	require.NoError(t, err)
	_, err = parser.Parse([]string{"--listen=127.0.0.1:0"})
	require.NoError(t, err)
	g, err := New(cfg, Deps{
		NATS: nc, Partitions: 4, History: &fakeStore{partitions: 4, level: 1}, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	require.ErrorContains(t, g.Run(t.Context()), broker.JoinedSubject)
	require.Error(t, g.Checks()["gateway"](t.Context()))
}

// Until the store has answered, clients are asked to come back, and the gateway is not ready.
func TestNobodyIsLetInBeforeTheLevelIsKnown(t *testing.T) {
	s := newStage(t)
	attempt := httptest.NewRequest(http.MethodGet, Path, nil)
	s.g.installationLevel.Store(0)
	s.store.down = true
	require.Error(t, s.g.agree(t.Context()))
	require.NotNil(t, s.g.gate.Admit(attempt, "192.0.2.1"))
	s.store.set(func() { s.store.down = false })
	require.ErrorContains(t, s.g.Checks()["history"](t.Context()), "level")
	require.NoError(t, s.g.agree(t.Context()))
	require.Nil(t, s.g.gate.Admit(attempt, "192.0.2.1"))
	require.NoError(t, s.g.Checks()["history"](t.Context()))
}

// The level is read again and again. It rises, never falls, and a gateway that is left behind stops.
func TestTheLevelIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{
			cfg: Config{HistoryTimeout: time.Second}, partitions: 4, metrics: metrics.New(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
		}
		store := &fakeStore{partitions: 4, level: 1}
		g.history = store
		require.NoError(t, g.agree(t.Context()))
		require.Equal(t, conversation.Level(1), g.level())
		g.installationLevel.Store(5) // another answer came first
		require.NoError(t, g.agree(t.Context()))
		require.Equal(t, conversation.Level(5), g.level(), "an old answer does not lower it")
		g.installationLevel.Store(0)

		ended := make(chan error, 1)
		go func() { ended <- g.watchInstallation(t.Context()) }()
		time.Sleep(2 * levelInterval)
		require.Equal(t, conversation.Level(1), g.level(), "it is asked for by itself")
		store.set(func() { store.down = true })
		time.Sleep(10 * levelInterval)
		synctest.Wait()
		require.Empty(t, ended, "a store that is away is no reason to stop")
		store.set(func() { store.down, store.level = false, uint32(conversation.MaxLevel())+1 })
		require.ErrorIs(t, <-ended, ErrMismatch)
		require.NotErrorIs(t, errDown, ErrMismatch)
	})
}
