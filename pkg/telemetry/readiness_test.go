package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// forget makes the next request run the checks again.
func (a *Admin) forget() { a.checked = time.Time{} }

// askReady requests /readyz like a prober, or with a token like an operator.
func askReady(ctx context.Context, a *Admin, token string) *httptest.ResponseRecorder {
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", http.NoBody)
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	recorder := httptest.NewRecorder()
	a.probes.ServeHTTP(recorder, request)
	return recorder
}

// Reasons may contain hosts and addresses. A caller without the token learns only which check failed.
func TestReasonsAreForOperators(t *testing.T) {
	const token = "0123456789abcdef"
	a, err := NewAdmin(AdminConfig{Listen: "127.0.0.1:0", Token: token}, Discard(), map[string]Check{
		"nats":    func(context.Context) error { return nil },
		"history": func(context.Context) error { return errors.New("dial tcp 10.1.2.3:5432: connection refused") },
	})
	require.NoError(t, err)
	defer a.listener.Close()
	for shown, reason := range map[string]string{token: "dial tcp 10.1.2.3:5432: connection refused", "": "failed", token + "x": "failed"} {
		response := askReady(t.Context(), a, shown)
		require.Equal(t, http.StatusServiceUnavailable, response.Code)
		require.JSONEq(t, `{"ready":false,"draining":false,"checks":{"nats":"ok","history":"`+reason+`"}}`, response.Body.String())
	}
}

// A degraded check is reported, to operators with its reason. It does not make the service unready, and does not hide a
// check that does.
func TestADegradedServiceIsReady(t *testing.T) {
	const token = "0123456789abcdef"
	var nats error
	a, err := NewAdmin(AdminConfig{Listen: "127.0.0.1:0", Token: token}, Discard(), map[string]Check{
		"nats": func(context.Context) error { return nats },
		"history": func(context.Context) error {
			return fmt.Errorf("read heads: %w", Degraded(errors.New("10.1.2.3 is away")))
		},
		"fine": func(context.Context) error { return Degraded(nil) },
	})
	require.NoError(t, err)
	defer a.listener.Close()
	for shown, result := range map[string]string{token: "degraded: read heads: 10.1.2.3 is away", "": "degraded"} {
		response := askReady(t.Context(), a, shown)
		require.Equal(t, http.StatusOK, response.Code)
		require.JSONEq(t, `{"ready":true,"draining":false,"degraded":true,"checks":{"nats":"ok","fine":"ok","history":"`+result+`"}}`, response.Body.String())
	}
	nats = errors.New("not connected")
	a.forget()
	response := askReady(t.Context(), a, "")
	require.Equal(t, http.StatusServiceUnavailable, response.Code)
	require.JSONEq(t, `{"ready":false,"draining":false,"degraded":true,"checks":{"nats":"failed","fine":"ok","history":"degraded"}}`, response.Body.String())
	nats = nil
	a.SetReady(false)
	require.Equal(t, http.StatusServiceUnavailable, askReady(t.Context(), a, "").Code, "a drain counts")
}

// Anyone may ask whether a service is ready. However many callers ask, the checks run once. A caller that disconnects
// does not cancel the answer of others.
func TestAFloodOfProbesIsOneCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		release, running := make(chan struct{}), 0
		a, err := NewAdmin(AdminConfig{}, Discard(), map[string]Check{"store": func(ctx context.Context) error {
			mu.Lock()
			running++
			mu.Unlock()
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}})
		require.NoError(t, err)
		first, leave := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		asking.Go(func() { askReady(first, a, "") })
		synctest.Wait()
		codes := make(chan int, 100)
		for range cap(codes) {
			asking.Go(func() { codes <- askReady(t.Context(), a, "").Code })
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		mu.Lock()
		require.Equal(t, 1, running)
		mu.Unlock()
		close(release)
		asking.Wait()
		for range cap(codes) {
			require.Equal(t, http.StatusOK, <-codes)
		}
	})
}
