package statuspage_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/statuspage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// answer is /status.json in the form that the page's script reads.
type answer struct {
	Title     string   `json:"title"`
	Attention []string `json:"attention"`
	Stages    []struct {
		Rate *float64 `json:"rate"`
		P50  *float64 `json:"p50_seconds"`
		P99  *float64 `json:"p99_seconds"`
	} `json:"stages"`
	Charts []struct {
		Points []*float64 `json:"points"`
	} `json:"charts"`
	Tables []statuspage.Table `json:"tables"`
}

func get(t *testing.T, page http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	recorder := httptest.NewRecorder()
	page.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	return recorder
}

func status(t *testing.T, page http.Handler) answer {
	t.Helper()
	response := get(t, page, "/status.json")
	require.Equal(t, http.StatusOK, response.Code)
	var a answer
	require.NoError(t, json.Unmarshal(response.Body.Bytes(), &a))
	return a
}

func TestChartsFollowTheMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		connections := prometheus.NewGauge(prometheus.GaugeOpts{Name: "connections", Help: "Live ones."})
		frames := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "frames_total", Help: "By direction."}, []string{"direction"})
		latency := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "seconds", Help: "By rung.", Buckets: []float64{.001, .01, .1}}, []string{"rung"})
		registry.MustRegister(connections, frames, latency)
		page := statuspage.New(statuspage.Config{
			Title: "test", Gatherer: registry, Log: slog.New(slog.DiscardHandler),
			Charts: []statuspage.Chart{
				{Title: "connections", Metric: "connections"},
				{Title: "frames in", Metric: "frames_total", Label: "direction", Is: "in", Kind: statuspage.Rate, Unit: "/s"},
				{Title: "all frames", Metric: "frames_total", Kind: statuspage.Rate, Unit: "/s"},
				{Title: "committed", Metric: "seconds", Label: "rung", Is: "committed", Kind: statuspage.P99, Unit: "s"},
				{Title: "nothing", Metric: "not_there", Kind: statuspage.Rate},
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- page.Run(ctx) }()
		synctest.Wait()

		connections.Set(7)
		frames.WithLabelValues("in").Add(50)
		frames.WithLabelValues("out").Add(100)
		for range 98 {
			latency.WithLabelValues("committed").Observe(0.0005)
		}
		latency.WithLabelValues("committed").Observe(0.05)
		latency.WithLabelValues("committed").Observe(0.05)
		latency.WithLabelValues("accepted").Observe(5)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		frames.WithLabelValues("in").Add(5)
		time.Sleep(5 * time.Second)
		synctest.Wait()

		a := status(t, page)
		require.Equal(t, "test", a.Title)
		last := func(chart, back int) *float64 { return a.Charts[chart].Points[len(a.Charts[chart].Points)-1-back] }
		require.InDelta(t, 7, *last(0, 0), 0)
		require.InDelta(t, 1, *last(1, 0), 1e-9)
		require.Nil(t, last(1, 1), "a series that was not there before has no rate yet")
		require.InDelta(t, 1, *last(2, 0), 1e-9)
		require.Nil(t, last(3, 0), "nothing was observed in the last five seconds")
		require.Nil(t, last(4, 0))

		for range 100 {
			latency.WithLabelValues("committed").Observe(0.0005)
		}
		latency.WithLabelValues("committed").Observe(0.05)
		latency.WithLabelValues("committed").Observe(0.05)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		a = status(t, page)
		require.InDelta(t, 0.1, *last(3, 0), 0, "the bound of the bucket that holds it")

		time.Sleep(time.Hour)
		synctest.Wait()
		a = status(t, page)
		require.Len(t, a.Charts[0].Points, 360, "half an hour and no more")

		cancel()
		require.NoError(t, <-ended)
	})
}

func TestTables(t *testing.T) {
	page := statuspage.New(statuspage.Config{
		Title: "test", Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Tables: []statuspage.Source{
			func(context.Context) (statuspage.Table, error) {
				return statuspage.Table{Title: "Connections", Columns: []string{"connection", "user"}, Rows: [][]string{{"c1", "ann"}}, Attention: "Look.", Note: "the first 100"}, nil
			},
			func(context.Context) (statuspage.Table, error) {
				return statuspage.Table{Title: "Partitions"}, errors.New("history is away")
			},
		},
	})
	a := status(t, page)
	require.Equal(t, []string{"Look."}, a.Attention)
	tables := a.Tables
	require.Len(t, tables, 2)
	require.Equal(t, []string{"c1", "ann"}, tables[0].Rows[0])
	require.Contains(t, tables[0].Note, "the first 100")
	require.Equal(t, "Partitions", tables[1].Title)
	require.Contains(t, tables[1].Note, "history is away")
	require.Equal(t, "could not be read", tables[1].Summary)
}

// A gauge may be infinite, which JSON cannot represent. The rest of the page must still be shown.
func TestAnInfiniteValueIsNotDrawn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		gauge := prometheus.NewGauge(prometheus.GaugeOpts{Name: "ratio", Help: "Of nothing."})
		registry.MustRegister(gauge)
		gauge.Set(math.Inf(1))
		page := statuspage.New(statuspage.Config{
			Title: "test", Gatherer: registry, Charts: []statuspage.Chart{{Title: "ratio", Metric: "ratio"}}, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- page.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, []*float64{nil}, status(t, page).Charts[0].Points)
		cancel()
		require.NoError(t, <-ended)
	})
}
