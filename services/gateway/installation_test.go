package gateway

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/telemetry"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func TestAGatewayThatDoesNotFitDoesNotStart(t *testing.T) {
	for name, c := range map[string]struct {
		store *gatewaytest.Store
		says  string
	}{
		"partitions":  {&gatewaytest.Store{Partitions: 16, Level: 1}, "--nats.partitions is 4 here and 16"},
		"a new level": {&gatewaytest.Store{Partitions: 4, Level: uint32(conversation.MaxLevel()) + 1}, "the level never falls"},
	} {
		t.Run(name, func(t *testing.T) {
			err := newGateway(t, nil, c.store).Run(t.Context())
			require.ErrorIs(t, err, ErrMismatch)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// A gateway with the nkey of another service receives no messages: it must not be ready even for a moment, because a
// rollout would continue.
func TestAGatewayThatMayNotListenIsNeverReady(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, Users: []*server.User{{
		Username: "delivery", Password: "p",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{broker.JoinedSubject}}},
	}}})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(30*time.Second))
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), prometheus.NewRegistry(),
		nats.InProcessServer(ns), nats.UserInfo("delivery", "p"))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	g := newGateway(t, nc, &gatewaytest.Store{Partitions: 4, Level: 1})
	require.ErrorContains(t, g.Run(t.Context()), broker.JoinedSubject)
	require.Error(t, g.Checks()["gateway"](t.Context()))
}

// Until the store has answered, clients are asked to reconnect, and the gateway is not ready.
func TestNobodyIsLetInBeforeTheLevelIsKnown(t *testing.T) {
	store := &gatewaytest.Store{Partitions: 4, Level: 1, Down: true}
	g := newGateway(t, nil, store)
	require.Error(t, g.installation.agree(t.Context()))
	require.False(t, g.isFree())
	store.Set(func() { store.Down = false })
	require.ErrorContains(t, g.Checks()["history"](t.Context()), "level")
	require.NoError(t, g.installation.agree(t.Context()))
	require.True(t, g.isFree())
	require.NoError(t, g.Checks()["history"](t.Context()))
}

// A database outage reaches every gateway at the same moment. If it made them not ready, the Kubernetes Service would have no
// endpoints left, and clients would lose the connections on which they wait for it to end.
func TestAnOutageOfTheStoreLeavesGatewaysReady(t *testing.T) {
	store := &gatewaytest.Store{Partitions: 4, Level: 1, Down: true}
	g := newGateway(t, nil, store)
	readiness := func() (code int, body string) {
		admin, err := telemetry.NewAdmin(telemetry.AdminConfig{Listen: "127.0.0.1:0"}, telemetry.Discard(),
			map[string]telemetry.Check{"history": g.Checks()["history"]})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- admin.Run(ctx) }()
		defer func() {
			stop()
			require.NoError(t, <-ended)
		}()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+admin.Addr()+"/readyz", http.NoBody)
		require.NoError(t, err)
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		return response.StatusCode, string(text)
	}
	code, body := readiness()
	require.Equal(t, http.StatusServiceUnavailable, code, "a gateway that never reached the store: %s", body)

	store.Set(func() { store.Down = false })
	require.NoError(t, g.installation.agree(t.Context()))
	code, body = readiness()
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"ready":true,"draining":false,"checks":{"history":"ok"}}`, body)

	store.Set(func() { store.Down = true })
	code, body = readiness()
	require.Equal(t, http.StatusOK, code, body)
	require.JSONEq(t, `{"ready":true,"draining":false,"degraded":true,"checks":{"history":"degraded: `+gatewaytest.ErrDown.Error()+`"}}`, body)
}

// A gateway that can be connected to and cannot work is not ready: NATS without JetStream takes no commands, and without the
// keys of the issuer nobody can be authenticated.
func TestAGatewayThatCannotWorkIsNotReady(t *testing.T) {
	nc := silentBroker(t)
	g := newGateway(t, nc, &gatewaytest.Store{Partitions: 4, Level: 1})
	require.True(t, nc.IsConnected())
	require.ErrorContains(t, g.Checks()["nats"](t.Context()), "JetStream")
	require.NoError(t, g.Checks()["auth"](t.Context()))
	var err error
	g.verifier, err = auth.New(auth.Config{JWKSURL: "http://127.0.0.1:1/jwks"}, auth.Options{})
	require.NoError(t, err)
	t.Cleanup(g.verifier.Close)
	require.ErrorIs(t, g.Checks()["auth"](t.Context()), auth.ErrKeysUnavailable)
}

// secret signs the tokens of tests.
const secret = "a secret of at least thirty-two bytes"

// newGateway makes a gateway with the default settings, except for those that are given.
func newGateway(t *testing.T, nc *nats.Conn, store *gatewaytest.Store, settings ...string) *Gateway {
	t.Helper()
	var cfg Config
	parser, err := kong.New(&cfg)
	require.NoError(t, err)
	_, err = parser.Parse(append([]string{"--listen=127.0.0.1:0"}, settings...))
	require.NoError(t, err)
	verifier, err := auth.New(auth.Config{HMACSecret: secret}, auth.Options{})
	require.NoError(t, err)
	t.Cleanup(verifier.Close)
	g, err := New(cfg, Deps{
		NATS: nc, Partitions: 4, History: store, Verifier: verifier, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = g.listener.Close() })
	return g
}

// The level is read periodically. It rises, never falls, and a gateway whose build is too old for it stops.
func TestTheLevelIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &gatewaytest.Store{Partitions: 4, Level: 1}
		i := &installation{
			history: store, partitions: 4, timeout: time.Second, metrics: metrics.New(prometheus.NewRegistry()), log: slog.New(slog.DiscardHandler),
		}
		require.NoError(t, i.agree(t.Context()))
		require.Equal(t, conversation.Level(1), i.level())
		i.known.Store(5) // a newer answer came first
		require.NoError(t, i.agree(t.Context()))
		require.Equal(t, conversation.Level(5), i.level(), "an old answer does not lower it")
		i.known.Store(0)

		ended := make(chan error, 1)
		go func() { ended <- i.watch(t.Context()) }()
		time.Sleep(2 * levelInterval)
		synctest.Wait()
		require.Equal(t, conversation.Level(1), i.level(), "the level is read without a request")
		store.Set(func() { store.Down = true })
		time.Sleep(10 * levelInterval)
		synctest.Wait()
		require.Empty(t, ended, "the gateway continues while the store is unavailable")
		store.Set(func() { store.Down, store.Level = false, uint32(conversation.MaxLevel())+1 })
		require.ErrorIs(t, <-ended, ErrMismatch)
		require.NotErrorIs(t, gatewaytest.ErrDown, ErrMismatch)
	})
}
