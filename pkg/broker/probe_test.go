package broker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// ready returns the result of /readyz for a check: whether the service is ready, and whether it is degraded.
func ready(t *testing.T, check telemetry.Check) (ready, degraded bool) {
	t.Helper()
	admin, err := telemetry.NewAdmin(telemetry.AdminConfig{}, telemetry.Discard(), map[string]telemetry.Check{"nats": check})
	require.NoError(t, err)
	health := admin.Health()
	return health.Ready, health.Degraded
}

// A probe proves that JetStream stores messages. When the disk is full, the server disables JetStream: the connection
// stays, and the probe fails. The probe succeeds again when JetStream is back.
func TestAProbeIsStored(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	creations := 0
	probe := broker.NewProbe(b.nc, func(ctx context.Context) error {
		creations++
		return broker.EnsureProbeStream(ctx, b.js, broker.Config{Replicas: 1})
	})
	for range 3 {
		require.NoError(t, probe.Check(t.Context()))
	}
	require.Equal(t, 1, creations)
	stream, err := b.js.Stream(t.Context(), broker.ProbeStream)
	require.NoError(t, err)
	require.EqualValues(t, 1, stream.CachedInfo().State.Msgs, "it keeps one message")

	require.NoError(t, b.server.DisableJetStream())
	require.True(t, b.nc.IsConnected())
	ok, degraded := ready(t, probe.Check)
	require.True(t, ok && degraded, "a short interruption leaves the service ready")
	broken := broker.NewProbe(b.nc, nil)
	require.ErrorContains(t, broken.Check(t.Context()), "JetStream is disabled")
	ok, _ = ready(t, broken.Check)
	require.False(t, ok)
	require.NoError(t, b.server.EnableJetStream(b.server.JetStreamConfig()))
	require.Eventually(t, func() bool { return probe.Check(t.Context()) == nil }, time.Minute, time.Millisecond)
}

// The state of the connection is a metric, because services can be scraped even while NATS is unavailable.
func TestTheConnectionIsExported(t *testing.T) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	require.NoError(t, err)
	ns.Start()
	require.True(t, ns.ReadyForConnections(30*time.Second))
	registry := prometheus.NewRegistry()
	nc, err := broker.Connect(broker.Config{}, "test", slog.New(slog.DiscardHandler), registry, nats.InProcessServer(ns))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	exported := func(value string) error {
		return testutil.GatherAndCompare(registry, strings.NewReader(
			"# HELP runnel_nats_connected 1 while the process is connected to NATS, else 0.\n# TYPE runnel_nats_connected gauge\nrunnel_nats_connected "+value+"\n"),
			"runnel_nats_connected")
	}
	require.NoError(t, exported("1"))
	ns.Shutdown()
	ns.WaitForShutdown()
	require.Eventually(t, func() bool { return exported("0") == nil }, time.Minute, time.Millisecond)
}

// A service that may not create the stream for probes is degraded until a worker has created it. Without the streams of
// commands, the service is unready.
func TestAProbeWithoutItsStream(t *testing.T) {
	b := setup(t, broker.SubmitterConfig{})
	probe := broker.NewProbe(b.nc, nil)
	ok, degraded := ready(t, probe.Check)
	require.True(t, ok && degraded)
	before, err := b.js.Stream(t.Context(), broker.StreamName(0))
	require.NoError(t, err)
	require.Zero(t, before.CachedInfo().State.LastSeq, "nothing was put into the stream of commands")
	require.NoError(t, broker.EnsureProbeStream(t.Context(), b.js, broker.Config{Replicas: 1}))
	require.NoError(t, probe.Check(t.Context()))

	require.NoError(t, b.js.DeleteStream(t.Context(), broker.ProbeStream))
	require.NoError(t, b.js.DeleteStream(t.Context(), broker.StreamName(0)))
	require.Error(t, broker.NewProbe(b.nc, nil).Check(t.Context()))
	refused := errors.New("no permission")
	require.ErrorIs(t, broker.NewProbe(b.nc, func(context.Context) error { return refused }).Check(t.Context()), refused)
	b.nc.Close()
	require.ErrorContains(t, probe.Check(t.Context()), "not connected")
}
