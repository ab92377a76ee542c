package admission

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func newGate(cfg Config) *Gate {
	cfg.Metrics, cfg.Log = metrics.New(prometheus.NewRegistry()), slog.New(slog.DiscardHandler)
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = 1000
	}
	if cfg.MaxConnectionsPerIP == 0 {
		cfg.MaxConnectionsPerIP = 1000
	}
	if cfg.ConnectRatePerIP == 0 {
		cfg.ConnectRatePerIP = 1000
	}
	return New(cfg, func() bool { return true })
}

func attempt(g *Gate, remote string) *Refusal {
	return g.Admit(httptest.NewRequest(http.MethodGet, "/v1/ws", nil), remote)
}

// Each limit refuses the connection above it and counts it under the limit's name. Below the limit, connections are
// accepted again.
func TestConnectionsAreLimited(t *testing.T) {
	for name, c := range map[string]struct {
		cfg     Config
		refused *Refusal
		remote  func(i int) string
		reject  metrics.Reject
		wait    time.Duration // how long until a place is free although no connection ends; 0 if one must end
	}{
		"in total":              {Config{MaxConnections: 10}, refusedFull, address, metrics.RejectLimit, 0},
		"of one address":        {Config{MaxConnectionsPerIP: 10}, refusedAddress, same, metrics.RejectLimit, 0},
		"by rate of an address": {Config{ConnectRatePerIP: 1}, refusedRate, same, metrics.RejectLimit, time.Second},
		"by rate":               {Config{ConnectRate: 5}, refusedStorm, address, metrics.RejectLimit, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(c.cfg)
				for i := range 10 {
					require.Nil(t, attempt(g, c.remote(i)))
				}
				require.Same(t, c.refused, attempt(g, c.remote(10)))
				require.InDelta(t, 1, testutil.ToFloat64(g.cfg.Metrics.Rejects[c.reject]), 0)
				require.InDelta(t, 1, testutil.ToFloat64(g.cfg.Metrics.Limits[c.refused.limit]), 0)
				if c.wait > 0 {
					g.Release(c.remote(0))
					require.NotNil(t, attempt(g, c.remote(10)), "closing a connection does not bypass the rate")
					time.Sleep(c.wait)
				} else {
					require.NotNil(t, attempt(g, c.remote(10)))
					g.Release(c.remote(0))
				}
				require.Nil(t, attempt(g, c.remote(10)))
			})
		})
	}
}

func address(i int) string { return fmt.Sprintf("192.0.2.%d", i) }

func same(int) string { return "192.0.2.1" }

// One address cannot use up the rate of the whole gateway.
func TestAnAddressAboveItsRateTakesNothingFromOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{ConnectRatePerIP: 1, ConnectRate: 6})
		for range 1000 {
			attempt(g, same(0))
		}
		require.Nil(t, attempt(g, address(2)))
		require.Nil(t, attempt(g, address(3)))
	})
}

func TestNobodyIsTakenBeforeTheGatewayIsReadyOrAfterItStops(t *testing.T) {
	g, ready := newGate(Config{}), false
	g.ready = func() bool { return ready }
	require.Same(t, refusedUnready, attempt(g, same(0)))
	ready = true
	require.Nil(t, attempt(g, same(0)))
	require.False(t, g.Closed())
	g.Close()
	require.True(t, g.Closed())
	require.Same(t, refusedDraining, attempt(g, same(0)))
}

// The table of addresses is bounded, and keeps every address whose allowance is not full.
func TestAddressesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{ConnectRatePerIP: 10})
		require.Nil(t, attempt(g, address(1)))
		require.Nil(t, attempt(g, address(2)))
		g.Release(address(1))
		g.Purge()
		require.Len(t, g.peers, 2, "the allowance of the first is not full again")
		time.Sleep(time.Second)
		g.Purge()
		require.Len(t, g.peers, 1, "the second is still connected")
		g.Release(address(2))
		require.Empty(t, g.peers)
		g.Release(address(3)) // an address that was never accepted
		require.Zero(t, g.taken)
	})
}

func TestAFullTableOfAddressesMakesRoom(t *testing.T) {
	g := newGate(Config{})
	require.Nil(t, attempt(g, same(0)))
	for i := range maxPeers {
		g.peers[strconv.Itoa(i)] = &peer{}
	}
	require.Nil(t, attempt(g, address(9)))
	require.Len(t, g.peers, 2)
}

// Refused clients are given random delays before they reconnect, so that they do not all return at once.
func TestARefusalSaysWhenToComeBack(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		w := httptest.NewRecorder()
		refusedStorm.Answer(w)
		require.Equal(t, http.StatusServiceUnavailable, w.Code)
		seen[w.Header().Get("Retry-After")] = true
	}
	require.Equal(t, map[string]bool{"1": true, "2": true, "3": true, "4": true, "5": true}, seen)
}
