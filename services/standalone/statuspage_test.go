package standalone

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// runTest runs a standalone until the test ends.
func runTest(t *testing.T) (*Standalone, *telemetry.Telemetry) {
	t.Helper()
	cfg := configure(t, t.TempDir())
	cfg.Admin.Listen, cfg.Admin.Pprof = "127.0.0.1:0", true
	tel := telemetry.Discard()
	s, err := New(t.Context(), cfg, tel)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		require.NoError(t, <-ended)
	})
	return s, tel
}

// Nobody can tell two charts with one title apart, and the page keeps one element for each title.
func TestTitlesOfTheStatusPageAreUnique(t *testing.T) {
	var titles []string
	for _, chart := range charts() {
		titles = append(titles, chart.Title)
	}
	requireUnique(t, titles)
	var names []string
	for _, stage := range stages() {
		names = append(names, stage.Name)
	}
	require.Equal(t, []string{"Accepted", "Committed", "Delivered"}, names)
}

func requireUnique(t *testing.T, titles []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, title := range titles {
		require.NotEmpty(t, title)
		folded := strings.ToLower(title)
		require.False(t, seen[folded], "%q is there twice", title)
		seen[folded] = true
	}
}

// A chart of a metric that does not exist draws nothing, and nobody notices.
func TestEveryCurveOfTheStatusPageHasItsMetric(t *testing.T) {
	_, tel := runTest(t)
	wanted := map[string]statuspage.Series{}
	for _, chart := range charts() {
		wanted["chart "+chart.Title] = statuspage.Series{Metric: chart.Metric, Label: chart.Label, Is: chart.Is}
	}
	for _, stage := range stages() {
		wanted["rate of "+stage.Name] = stage.Rate
		wanted["latency of "+stage.Name] = stage.Latency
		wanted["backlog of "+stage.Name] = stage.Backlog
	}
	missing := func() map[string]statuspage.Series {
		families, err := tel.Registry.Gather()
		require.NoError(t, err)
		found := map[statuspage.Series]bool{}
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				found[statuspage.Series{Metric: family.GetName()}] = true
				for _, label := range metric.GetLabel() {
					found[statuspage.Series{Metric: family.GetName(), Label: label.GetName(), Is: label.GetValue()}] = true
				}
			}
		}
		left := map[string]statuspage.Series{}
		for what, series := range wanted {
			if !found[series] {
				left[what] = series
			}
		}
		return left
	}
	// Some are there only once a partition is owned.
	require.Eventually(t, func() bool { return len(missing()) == 0 }, time.Minute, 10*time.Millisecond, "%v", missing())
}

// The page and its data answer, say that the process is ready, and keep other sites out, like all else on the admin port.
func TestTheStatusPageOfAStandalone(t *testing.T) {
	s, _ := runTest(t)
	base := "http://" + s.AdminAddr()
	type answer struct {
		Health struct {
			Ready  bool
			Checks []struct{ Name, State string }
		}
		Stages []struct{ Name string }
		Tables []statuspage.Table
	}
	var status answer
	require.Eventually(t, func() bool {
		status = answer{} // a field that is left out keeps its former value otherwise
		code := ask(t, base+"/status.json", nil, &status)
		return code == http.StatusOK && status.Health.Ready && len(status.Tables) > 1 && strings.HasPrefix(status.Tables[1].Summary, "2 of 2 running")
	}, time.Minute, 10*time.Millisecond)
	var checks []string
	for _, check := range status.Health.Checks {
		checks = append(checks, check.Name)
	}
	require.Equal(t, []string{"auth", "delivery", "gateway", "history", "ledger", "nats", "streams"}, checks, "every part counts")
	require.Len(t, status.Stages, 3)
	var titles []string
	for _, table := range status.Tables {
		titles = append(titles, table.Title)
		require.Empty(t, table.Attention)
	}
	require.Equal(t, []string{"Connections", "Partitions", "Dead letters"}, titles)

	for _, route := range s.admin.Routes() {
		_, path, _ := strings.Cut(route, "/") // it may begin with a method
		require.Equal(t, http.StatusForbidden, ask(t, base+"/"+path, http.Header{"Origin": {"https://evil.example"}}, nil), route)
	}
	for _, path := range []string{"/status.json", "/status.js", "/debug/connections", "/debug/users/ann"} {
		require.Equal(t, http.StatusForbidden, ask(t, base+path, http.Header{"Sec-Fetch-Site": {"cross-site"}}, nil), path)
	}
}

// ask asks with these headers; with into it decodes the answer.
func ask(t *testing.T, url string, header http.Header, into any) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	require.NoError(t, err)
	maps.Copy(request.Header, header)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer response.Body.Close()
	if into != nil {
		require.NoError(t, json.NewDecoder(response.Body).Decode(into))
	}
	return response.StatusCode
}
