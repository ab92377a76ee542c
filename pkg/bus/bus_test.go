package bus_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/bus"
	"github.com/runnelhq/runnel/pkg/bus/bustest"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestInProcess(t *testing.T) {
	bustest.Run(t, func(t *testing.T) (publisher, subscriber bus.Bus) {
		t.Helper()
		b, err := bus.NewInProcess(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		return b, b
	})
}

func TestOverNATS(t *testing.T) {
	ns, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true})
	require.NoError(t, err)
	ns.Start()
	t.Cleanup(func() {
		ns.Shutdown()
		ns.WaitForShutdown()
	})
	require.True(t, ns.ReadyForConnections(30*time.Second))
	bustest.Run(t, func(t *testing.T) (publisher, subscriber bus.Bus) {
		t.Helper()
		connect := func() bus.Bus {
			nc, err := nats.Connect(ns.ClientURL(), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			require.NoError(t, err)
			t.Cleanup(nc.Close)
			return bus.OverNATS{Conn: nc}
		}
		return connect(), connect()
	})
}

// A message that is lost in the process is counted and logged.
func TestLostMessagesAreCounted(t *testing.T) {
	log, registry := &telemetrytest.Log{}, prometheus.NewRegistry()
	b, err := bus.NewInProcess(slog.New(slog.NewTextHandler(log, nil)), registry)
	require.NoError(t, err)
	_, err = b.ChanSubscribe("live.g", make(chan *nats.Msg))
	require.NoError(t, err)
	require.NoError(t, b.PublishMsg(&nats.Msg{Subject: "live.g"}))
	lost, err := testutil.GatherAndCount(registry, "runnel_bus_dropped_total")
	require.NoError(t, err)
	require.Equal(t, 1, lost)
	require.Contains(t, log.String(), "subject=live.g")
}

// A faulty bus injects all of its faults, and the same ones for the same seed.
func TestFaulty(t *testing.T) {
	run := func() (got []string) {
		b, err := bus.NewInProcess(slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		require.NoError(t, err)
		_, err = b.Subscribe("a", func(msg *nats.Msg) { got = append(got, string(msg.Data)) })
		require.NoError(t, err)
		faulty := bustest.NewFaulty(b, 1)
		faulty.Lose, faulty.Repeat, faulty.Delay = 0.1, 0.1, 0.1
		for i := range 200 {
			require.NoError(t, faulty.PublishMsg(&nats.Msg{Subject: "a", Data: []byte{byte(i)}}))
		}
		require.Positive(t, faulty.Faults())
		return got
	}
	first := run()
	require.Equal(t, first, run())
	repeated, late := 0, 0
	for i := 1; i < len(first); i++ {
		if first[i] == first[i-1] {
			repeated++
		}
		if first[i] < first[i-1] {
			late++
		}
	}
	require.Positive(t, repeated)
	require.Positive(t, late)
	require.NotContains(t, []int{200, 0}, len(first))
}
