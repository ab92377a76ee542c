package telemetry

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const testToken = "0123456789abcdef"

// adminHandler returns the handler of an admin server with all its routes, including a route that a service added.
func adminHandler(t *testing.T, token string) (*Admin, http.Handler) {
	t.Helper()
	a, err := NewAdmin(AdminConfig{Listen: "127.0.0.1:0", Token: token, Pprof: true}, Discard(), nil)
	require.NoError(t, err)
	t.Cleanup(a.Close)
	a.Handle("/debug/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	a.Handle("/", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	return a, a.server.Handler
}

// pathOf returns the path of a pattern, which may begin with a method.
func pathOf(route string) string {
	_, path, _ := strings.Cut(route, "/")
	return "/" + path
}

// from sends a request with these headers. It is sent to the loopback address, unless Host is among the headers.
func from(t *testing.T, handler http.Handler, method, path string, headers map[string]string) *httptest.ResponseRecorder {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a profile would take seconds
	request := httptest.NewRequestWithContext(ctx, method, path, http.NoBody)
	request.Host = "127.0.0.1:9090"
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	if host := headers["Host"]; host != "" {
		request.Host = host
	}
	recorder := httptest.NewRecorder()
	handler.ServeHTTP(recorder, request)
	return recorder
}

// No page of another site gets an answer from any route. This holds with a token that the browser adds by itself, and on
// loopback, where no token is needed.
func TestNoRouteAnswersAnotherSite(t *testing.T) {
	for name, token := range map[string]string{"without a token": "", "with a token": testToken} {
		t.Run(name, func(t *testing.T) {
			a, handler := adminHandler(t, token)
			require.Contains(t, a.Routes(), "GET /metrics")
			require.GreaterOrEqual(t, len(a.Routes()), 11)
			for _, route := range a.Routes() {
				path := pathOf(route)
				isProbe := path == "/livez" || path == "/healthz" || path == "/readyz"
				for what, headers := range map[string]map[string]string{
					"another site's script":           {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
					"another site's script, no fetch": {"Origin": "https://evil.example"},
					"a sandboxed frame":               {"Origin": "null"},
					"another port of this machine":    {"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-site"},
					"an origin that begins like ours": {"Origin": "http://127.0.0.1:9090.evil.example"},
					"an image or a link":              {"Sec-Fetch-Site": "cross-site"},
					"an image of another port":        {"Sec-Fetch-Site": "same-site"},
					"a future word":                   {"Sec-Fetch-Site": "near-site"},
				} {
					if isProbe && headers["Origin"] == "" {
						continue // a link to a probe is harmless
					}
					for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
						shown := map[string]string{"Authorization": "Bearer " + testToken}
						maps.Copy(shown, headers)
						response := from(t, handler, method, path, shown)
						require.Equal(t, http.StatusForbidden, response.Code, "%s %s by %s", method, path, what)
						require.Regexp(t, `^cross_site: .*address bar`, response.Body.String())
						require.Empty(t, response.Header().Get("Access-Control-Allow-Origin"))
					}
				}
				for what, headers := range map[string]map[string]string{
					"a program":       {},
					"the address bar": {"Sec-Fetch-Site": "none"},
					"our own page":    {"Sec-Fetch-Site": "same-origin"},
					"our own script":  {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:9090"},
				} {
					headers["Authorization"] = "Bearer " + testToken
					response := from(t, handler, http.MethodGet, path, headers)
					require.NotContains(t, []int{http.StatusForbidden, http.StatusUnauthorized}, response.Code, "%s by %s", path, what)
					require.Equal(t, "same-origin", response.Header().Get("Cross-Origin-Resource-Policy"))
				}
			}
		})
	}
}

// A site can make its own name resolve to this machine. The browser then regards the request as same-origin, so only the
// Host header reveals it.
func TestNoRouteAnswersANameOfAnother(t *testing.T) {
	a, handler := adminHandler(t, "")
	for _, route := range a.Routes() {
		path := pathOf(route)
		if path == "/livez" || path == "/healthz" || path == "/readyz" {
			continue
		}
		rebound := from(t, handler, http.MethodGet, path, map[string]string{"Host": "evil.example:9090", "Sec-Fetch-Site": "same-origin"})
		require.Equal(t, http.StatusForbidden, rebound.Code, path)
		require.Regexp(t, `^wrong_host: .*RUNNEL_ADMIN_TOKEN`, rebound.Body.String())
		for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded", "Via", "X-Forwarded-Host"} {
			forwarded := from(t, handler, http.MethodGet, path, map[string]string{header: "for=203.0.113.9"})
			require.Equal(t, http.StatusForbidden, forwarded.Code, path)
			require.Regexp(t, `^forwarded: .*RUNNEL_ADMIN_TOKEN`, forwarded.Body.String())
		}
	}
}

// A request with the name of another site gets only information that is public.
func TestReasonsAreNotForANameOfAnother(t *testing.T) {
	a, err := NewAdmin(AdminConfig{Listen: "127.0.0.1:0"}, Discard(), map[string]Check{
		"history": func(context.Context) error { return errors.New("dial tcp 10.1.2.3:5432: connection refused") },
	})
	require.NoError(t, err)
	t.Cleanup(a.Close)
	require.Contains(t, from(t, a.server.Handler, http.MethodGet, "/readyz", nil).Body.String(), "10.1.2.3")
	require.NotContains(t, from(t, a.server.Handler, http.MethodGet, "/readyz", map[string]string{"Host": "evil.example"}).Body.String(), "10.1.2.3")
}
