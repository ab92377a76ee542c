package delivery

import (
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"
)

// An outage of NATS is logged as one event, whatever the number of partitions.
func TestAnOutageOfNATSIsAFewLines(t *testing.T) {
	const count = 16
	b := newBed(t, count)
	log := &telemetrytest.Log{}
	limiter := telemetry.NewLimiter(slog.NewTextHandler(log, nil))
	w := b.startWorker(func(_ *Config, deps *Deps) {
		deps.Log = slog.New(limiter)
		var err error
		deps.NATS, err = broker.Connect(broker.Config{URL: nats.DefaultURL}, "test", deps.Log, prometheus.NewRegistry(), nats.InProcessServer(b))
		require.NoError(t, err)
		t.Cleanup(deps.NATS.Close)
	})
	require.Eventually(t, func() bool { return w.Running() == count }, patience, time.Millisecond)
	before := strings.Count(log.String(), "\n")

	b.server.Shutdown()
	b.server.WaitForShutdown()
	require.Eventually(t, func() bool { return w.Running() == 0 }, patience, time.Millisecond, "every partition is released")
	b.startServer()
	require.Eventually(t, func() bool { return w.Running() == count }, patience, time.Millisecond)
	limiter.Close() // Close also writes the lines that the limiter held back
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")[before:]
	t.Logf("%d lines:\n%s", len(lines), strings.Join(lines, "\n"))
	require.LessOrEqual(t, len(lines), 12)
	// On a slow machine the purgers inspect their streams for the first time only when NATS has gone; they report that themselves.
	isError := regexp.MustCompile("level=ERROR")
	lines = slices.DeleteFunc(lines, func(line string) bool { return !isError.MatchString(line) || strings.Contains(line, "could not purge") })
	require.LessOrEqual(t, len(lines), 1)
}
