package telemetry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// startAdmin runs an admin server for the length of the test.
func startAdmin(t *testing.T, cfg telemetry.AdminConfig, checks map[string]telemetry.Check) *telemetry.Admin {
	t.Helper()
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{}, io.Discard)
	require.NoError(t, err)
	admin, err := telemetry.NewAdmin(cfg, tel, checks)
	require.NoError(t, err)
	admin.Handle("GET /partitions", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("0")) }))
	run(t, admin)
	return admin
}

// run runs an admin server for the length of the test.
func run(t *testing.T, admin *telemetry.Admin) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- admin.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		require.NoError(t, <-ended)
	})
}

func get(t *testing.T, url, accept string) (int, string, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", accept)
	response, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer func() { require.NoError(t, response.Body.Close()) }()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body), response.Header
}

func TestAdmin(t *testing.T) {
	var broken atomic.Bool
	admin := startAdmin(t, telemetry.AdminConfig{Listen: "127.0.0.1:0"}, map[string]telemetry.Check{
		"nats": func(context.Context) error { return nil },
		"history": func(context.Context) error {
			if broken.Load() {
				return errors.New("no connection to the store")
			}
			return nil
		},
	})
	base := "http://" + admin.Addr()

	for _, path := range []string{"/livez", "/healthz"} {
		code, body, _ := get(t, base+path, "")
		require.Equal(t, http.StatusOK, code)
		require.Equal(t, "ok\n", body)
	}
	code, body, header := get(t, base+"/metrics", "application/openmetrics-text")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, header.Get("Content-Type"), "openmetrics")
	require.Contains(t, body, "go_goroutines")

	code, body, _ = get(t, base+"/readyz", "")
	require.Equal(t, http.StatusOK, code)
	require.JSONEq(t, `{"ready":true,"draining":false,"checks":{"nats":"ok","history":"ok"}}`, body)

	broken.Store(true)
	require.Eventually(t, func() bool {
		code, body, _ = get(t, base+"/readyz", "")
		return code == http.StatusServiceUnavailable
	}, time.Minute, time.Millisecond)
	require.JSONEq(t, `{"ready":false,"draining":false,"checks":{"nats":"ok","history":"no connection to the store"}}`, body)
	code, _, _ = get(t, base+"/livez", "")
	require.Equal(t, http.StatusOK, code, "being alive depends on nothing")

	broken.Store(false)
	require.Eventually(t, func() bool {
		code, _, _ = get(t, base+"/readyz", "")
		return code == http.StatusOK
	}, time.Minute, time.Millisecond)
	admin.SetReady(false)
	code, body, _ = get(t, base+"/readyz", "")
	require.Equal(t, http.StatusServiceUnavailable, code)
	require.JSONEq(t, `{"ready":false,"draining":true,"checks":{"nats":"ok","history":"ok"}}`, body)
	admin.SetReady(true)
	code, _, _ = get(t, base+"/readyz", "")
	require.Equal(t, http.StatusOK, code)

	code, body, _ = get(t, base+"/partitions", "")
	require.Equal(t, http.StatusOK, code)
	require.Equal(t, "0", body)
	code, _, _ = get(t, base+"/debug/pprof/", "")
	require.Equal(t, http.StatusNotFound, code, "profiles can be turned off")
}

func TestAdminPprof(t *testing.T) {
	admin := startAdmin(t, telemetry.AdminConfig{Listen: "127.0.0.1:0", Pprof: true}, nil)
	code, body, _ := get(t, "http://"+admin.Addr()+"/debug/pprof/goroutine?debug=1", "")
	require.Equal(t, http.StatusOK, code)
	require.Contains(t, body, "goroutine profile")
}

// A check that hangs is cut off when the server stops, and does not delay the stop.
func TestAdminStopsWithACheckInFlight(t *testing.T) {
	entered := make(chan struct{})
	var once sync.Once
	tel := telemetry.Discard()
	admin, err := telemetry.NewAdmin(telemetry.AdminConfig{Listen: "127.0.0.1:0"}, tel, map[string]telemetry.Check{
		"stuck": func(ctx context.Context) error { once.Do(func() { close(entered) }); <-ctx.Done(); return ctx.Err() },
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- admin.Run(ctx) }()
	answered := make(chan string, 1)
	go func() {
		response, err := http.Get("http://" + admin.Addr() + "/readyz")
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = response.Body.Close()
		answered <- response.Status
	}()
	<-entered
	cancel()
	require.NoError(t, <-ended)
	require.NotEqual(t, "200 OK", <-answered) // 503 if the server had read the request, otherwise an error
	http.DefaultClient.CloseIdleConnections()
}

func TestAdminOff(t *testing.T) {
	admin := startAdmin(t, telemetry.AdminConfig{}, nil)
	require.Empty(t, admin.Addr())
}

func TestAdminPortTaken(t *testing.T) {
	admin := startAdmin(t, telemetry.AdminConfig{Listen: "127.0.0.1:0"}, nil)
	_, err := telemetry.NewAdmin(telemetry.AdminConfig{Listen: admin.Addr()}, telemetry.Discard(), nil)
	require.ErrorContains(t, err, "admin server")
}

func TestAdminAsksForTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	admin := startAdmin(t, telemetry.AdminConfig{Listen: "127.0.0.1:0", Token: token, Pprof: true}, nil)
	ask := func(path string, show func(*http.Request)) int {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin.Addr()+path, nil)
		require.NoError(t, err)
		show(request)
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		return response.StatusCode
	}
	nothing := func(*http.Request) {}
	for _, path := range []string{"/livez", "/readyz", "/healthz"} {
		require.Equal(t, http.StatusOK, ask(path, nothing), "probes show nothing")
	}
	for _, path := range []string{"/metrics", "/debug/pprof/", "/partitions"} {
		require.Equal(t, http.StatusUnauthorized, ask(path, nothing))
		require.Equal(t, http.StatusUnauthorized, ask(path, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"x") }))
		require.Equal(t, http.StatusUnauthorized, ask(path, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }))
		require.Equal(t, http.StatusUnauthorized, ask(path, func(r *http.Request) { r.SetBasicAuth(token, "") }))
		require.Equal(t, http.StatusOK, ask(path, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }))
		require.Equal(t, http.StatusOK, ask(path, func(r *http.Request) { r.SetBasicAuth("anybody", token) }))
	}
	require.Equal(t, http.StatusNotFound, ask("/elsewhere", func(r *http.Request) { r.SetBasicAuth("anybody", token) }))
}

// A page of another site may make its own name resolve to this machine. It must not learn anything.
func TestAdminWithoutATokenIsForThisMachine(t *testing.T) {
	admin := startAdmin(t, telemetry.AdminConfig{Listen: "127.0.0.1:0"}, nil)
	for host, want := range map[string]int{"localhost:9090": 200, "127.0.0.1": 200, "[::1]:9090": 200, "evil.example": 403, "localhost.evil.example:9090": 403} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+admin.Addr()+"/metrics", nil)
		require.NoError(t, err)
		request.Host = host
		response, err := http.DefaultClient.Do(request)
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, response.StatusCode, host)
	}
}

func TestAdminOffLoopbackNeedsAToken(t *testing.T) {
	_, err := telemetry.NewAdmin(telemetry.AdminConfig{Listen: "0.0.0.0:0"}, telemetry.Discard(), nil)
	require.ErrorContains(t, err, "RUNNEL_ADMIN_TOKEN")
	_, err = telemetry.NewAdmin(telemetry.AdminConfig{Listen: "127.0.0.1:0", Token: "short"}, telemetry.Discard(), nil)
	require.ErrorContains(t, err, "at least 16")
	startAdmin(t, telemetry.AdminConfig{Listen: "0.0.0.0:0", Token: "0123456789abcdef"}, nil)
}
