package statuspage_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/statuspage"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

func file(t *testing.T, path string) string {
	t.Helper()
	page := statuspage.New(statuspage.Config{Title: "test", Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	response := get(t, page, path)
	require.Equal(t, http.StatusOK, response.Code)
	return response.Body.String()
}

func TestPageLoadsNothingFromElsewhere(t *testing.T) {
	page := statuspage.New(statuspage.Config{Title: "test", Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler)})
	for path, contentType := range map[string]string{"/": "text/html", "/status.js": "text/javascript", "/status.css": "text/css"} {
		response := get(t, page, path)
		require.Equal(t, http.StatusOK, response.Code)
		require.Contains(t, response.Header().Get("Content-Type"), contentType)
		require.Contains(t, response.Header().Get("Content-Security-Policy"), "default-src 'none'")
		body := response.Body.String()
		require.NotRegexp(t, `innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(`, body, "names come from clients")
		require.NotContains(t, body, "https://")
		require.NotRegexp(t, `(src|href)="/`, body, "a proxy may serve the page below another path")
	}
	require.Equal(t, http.StatusNotFound, get(t, page, "/elsewhere").Code)
}

func TestPageHasADarkForm(t *testing.T) {
	css := file(t, "/status.css")
	variables := regexp.MustCompile(`--[a-z-]+:`)
	dark := regexp.MustCompile(`(?s)@media \(prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}`).FindStringSubmatch(css)
	require.NotNil(t, dark)
	light := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindStringSubmatch(css)
	require.NotNil(t, light)
	require.ElementsMatch(t, variables.FindAllString(light[1], -1), variables.FindAllString(dark[1], -1), "each color has both forms")
	rest := regexp.MustCompile(`(?s):root \{.*?\}`).ReplaceAllString(css, "")
	require.NotRegexp(t, `#[0-9a-f]{3,6}\b[^{}]*;`, rest, "a color that has no dark form")
}

// The page contains the elements that the script fills in.
func TestTheScriptAndThePageFitTogether(t *testing.T) {
	html, js := file(t, "/"), file(t, "/status.js")
	ids := regexp.MustCompile(`byId\('([a-z-]+)'\)`).FindAllStringSubmatch(js, -1)
	require.NotEmpty(t, ids)
	for _, id := range ids {
		require.Contains(t, html, ` id="`+id[1]+`"`)
	}
	golden, err := os.ReadFile("testdata/status.json")
	require.NoError(t, err)
	var answer any
	require.NoError(t, json.Unmarshal(golden, &answer))
	for _, name := range names(answer) {
		require.Regexp(t, `\.`+name+`\b`, js, "the page shows everything that is in status.json")
	}
}

// names returns the names of all fields.
func names(value any) []string {
	var all []string
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			all = append(append(all, name), names(field)...)
		}
	case []any:
		for _, item := range value {
			all = append(all, names(item)...)
		}
	}
	return all
}

// A real browser shows why the process is not ready, and shows hostile text as plain text. The test requires chromium and
// runs with CI_CHROMIUM=1.
func TestABrowserShowsThePage(t *testing.T) {
	if os.Getenv("CI_CHROMIUM") == "" {
		t.Skip("CI_CHROMIUM is not set")
	}
	const hostile = "<script>document.title='taken'</script>"
	// The clock of a browser may be a little behind: the half minute keeps the hour complete.
	page := statuspage.New(statuspage.Config{
		Title: "runnel-gateway", Version: "v1.2.3", Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
		Health: func() telemetry.Health {
			return telemetry.Health{Checks: []telemetry.CheckResult{
				{Name: "history", State: telemetry.CheckFailed, Reason: "away " + hostile, Since: time.Now().Add(-time.Hour - 30*time.Second)},
				{Name: "nats", State: telemetry.CheckPassed, Since: time.Now().Add(-time.Hour - 30*time.Second)},
			}}
		},
		Stages: []statuspage.Stage{{Name: "Accepted"}, {Name: "Committed"}},
		Tables: []statuspage.Source{func(context.Context) (statuspage.Table, error) {
			return statuspage.Table{Title: "Connections", Columns: []string{"user"}, Rows: [][]string{{hostile}}, Attention: "look here"}, nil
		}},
	})
	server := httptest.NewServer(page)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	shown, err := exec.CommandContext(ctx, "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir="+t.TempDir(), "--virtual-time-budget=2000", "--dump-dom", server.URL).Output()
	require.NoError(t, err)
	dom := string(shown)
	require.Contains(t, dom, "<title>Not ready: history · runnel-gateway</title>")
	require.Contains(t, dom, `<span id="verdict-text">Not ready: history</span>`)
	require.Regexp(t, `✕ failed.*since .*\(1 h 0 min\).*away &lt;script&gt;`, dom)
	require.Regexp(t, `nats.*✓ ok`, dom)
	require.Contains(t, dom, "<li data-key=\"0\">look here</li>")
	require.Regexp(t, `<td[^>]*>&lt;script&gt;`, dom)
	require.Regexp(t, `Accepted.*Committed`, dom)
	require.Contains(t, dom, "v1.2.3")
	require.NotContains(t, dom, hostile)
}
