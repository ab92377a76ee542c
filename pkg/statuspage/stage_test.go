package statuspage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

var update = flag.Bool("update", false, "write the golden files")

// running makes a page and runs it until the test ends. It must be called in a synctest bubble.
func running(t *testing.T, cfg statuspage.Config) *statuspage.Page {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	page := statuspage.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- page.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	synctest.Wait()
	return page
}

// The figures of a stage cover the last minute: one message is visible for a minute, and not longer.
func TestStagesTellTheLastMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "seconds", Help: "By rung.", Buckets: []float64{.001, .01, .1}}, []string{"rung"})
		waiting := prometheus.NewGauge(prometheus.GaugeOpts{Name: "waiting", Help: "Now."})
		registry.MustRegister(latency, waiting)
		committed := statuspage.Series{Metric: "seconds", Label: "rung", Is: "committed"}
		page := running(t, statuspage.Config{Gatherer: registry, Stages: []statuspage.Stage{
			{Name: "Committed", Rate: committed, Latency: committed, Backlog: statuspage.Series{Metric: "waiting"}}, {Name: "Empty"},
		}})
		first := status(t, page).Stages[0]
		require.Nil(t, first.Rate)
		require.Nil(t, first.P99)

		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		latency.WithLabelValues("committed").Observe(0.05) // observed before the first reading, so it cannot be counted
		pass(5 * time.Second)
		for range 118 {
			latency.WithLabelValues("committed").Observe(0.0005)
		}
		latency.WithLabelValues("committed").Observe(0.005)
		latency.WithLabelValues("committed").Observe(0.005)
		latency.WithLabelValues("accepted").Observe(5)
		pass(60 * time.Second)
		stage := status(t, page).Stages[0]
		require.InDelta(t, 2, *stage.Rate, 1e-9, "120 in a minute")
		require.InDelta(t, 0.001, *stage.P50, 0)
		require.InDelta(t, 0.01, *stage.P99, 0)

		pass(5 * time.Second)
		stage = status(t, page).Stages[0]
		require.InDelta(t, 0, *stage.Rate, 0)
		require.Nil(t, stage.P50)
		require.Nil(t, status(t, page).Stages[1].Rate)
	})
}

func TestStagesOfServicesBecomeOneRow(t *testing.T) {
	series := func(name string) statuspage.Series { return statuspage.Series{Metric: name} }
	row := statuspage.Merge(
		[]statuspage.Stage{{Name: "Accepted", Rate: series("a")}, {Name: "Committed", Meaning: "stored", Latency: series("l"), LatencyFrom: "from the frame"}, {Name: "Delivered"}},
		[]statuspage.Stage{{Name: "Committed", Meaning: "other", Rate: series("c"), Latency: series("other"), LatencyFrom: "other", Backlog: series("lag"), BacklogOf: "commands"}, {Name: "Published"}},
	)
	require.Equal(t, []statuspage.Stage{
		{Name: "Accepted", Rate: series("a")},
		{Name: "Committed", Meaning: "stored", Rate: series("c"), Latency: series("l"), LatencyFrom: "from the frame", Backlog: series("lag"), BacklogOf: "commands"},
		{Name: "Delivered"},
		{Name: "Published"},
	}, row)
}

// /status.json contains everything for programs: not ready, each check with its reason and time, stages, charts and
// tables.
func TestStatusForPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		frames := prometheus.NewCounter(prometheus.CounterOpts{Name: "frames_total", Help: "All."})
		registry.MustRegister(frames)
		var store error
		admin, err := telemetry.NewAdmin(telemetry.AdminConfig{}, telemetry.Discard(), map[string]telemetry.Check{
			"history": func(context.Context) error { return store },
			"nats":    func(context.Context) error { return nil },
			"search":  func(context.Context) error { return telemetry.Degraded(errors.New("is 5 s behind")) },
		})
		require.NoError(t, err)
		page := running(t, statuspage.Config{
			Title: "runnel <i>", Version: "v1.2.3", Health: admin.Health, Gatherer: registry,
			Stages: []statuspage.Stage{{
				Name: "Accepted", Meaning: "the broker holds it", Rate: statuspage.Series{Metric: "frames_total"}, LatencyFrom: "from the frame",
				Backlog: statuspage.Series{Metric: "frames_total"}, BacklogOf: "in flight", BacklogUnit: "B",
			}},
			Charts: []statuspage.Chart{{Title: "Frames", Metric: "frames_total", Kind: statuspage.Rate, Unit: "/s", Detail: true}},
			Tables: []statuspage.Source{
				func(context.Context) (statuspage.Table, error) {
					return statuspage.Table{
						Title: "Connections", Summary: "1 open", Attention: "Look at ann.", Columns: []string{"user"},
						Rows: [][]string{{"<script>alert(1)</script>"}}, Marked: []int{0}, Note: "the first 100",
					}, nil
				},
				func(context.Context) (statuspage.Table, error) {
					return statuspage.Table{Title: "Partitions"}, errors.New("NATS is away")
				},
			},
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		store = errors.New("connection refused")
		frames.Add(10)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var shown bytes.Buffer
		require.NoError(t, json.Indent(&shown, get(t, page, "/status.json").Body.Bytes(), "", "  "))
		shown.WriteByte('\n')
		const golden = "testdata/status.json"
		if *update {
			require.NoError(t, os.WriteFile(golden, shown.Bytes(), 0o600))
		}
		want, err := os.ReadFile(golden)
		require.NoError(t, err)
		require.Equal(t, string(want), shown.String())
	})
}
