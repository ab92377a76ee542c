package admission

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	for _, limit := range []*int{&cfg.MaxConnections, &cfg.MaxConnectionsPerIP, &cfg.MaxConnectionsPerNetwork} {
		if *limit == 0 {
			*limit = 1000
		}
	}
	for _, limit := range []*float64{&cfg.ConnectRatePerIP, &cfg.ConnectRatePerNetwork} {
		if *limit == 0 {
			*limit = 1000
		}
	}
	return New(cfg, func() bool { return true })
}

func attempt(g *Gate, remote string) *Refusal {
	_, refusal := enter(g, remote)
	return refusal
}

// enter makes an authenticated connection.
func enter(g *Gate, remote string) (*Slot, *Refusal) {
	slot, refusal := g.Admit(httptest.NewRequest(http.MethodGet, "/v1/ws", nil), remote)
	if slot != nil && !slot.Authenticate() {
		panic("admitted, but there is no room")
	}
	return slot, refusal
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
		"of a mapped address":   {Config{MaxConnectionsPerIP: 10}, refusedAddress, mapped, metrics.RejectLimit, 0},
		"of one /64":            {Config{MaxConnectionsPerIP: 10}, refusedAddress, host, metrics.RejectLimit, 0},
		"of one /48":            {Config{MaxConnectionsPerNetwork: 10}, refusedNetwork, subnet, metrics.RejectLimit, 0},
		"by rate of an address": {Config{ConnectRatePerIP: 1}, refusedRate, same, metrics.RejectLimit, time.Second},
		"by rate of a /64":      {Config{ConnectRatePerIP: 1}, refusedRate, host, metrics.RejectLimit, time.Second},
		"by rate of a /48":      {Config{ConnectRatePerNetwork: 1}, refusedNetworkRate, subnet, metrics.RejectLimit, time.Second},
		"by rate":               {Config{ConnectRate: 5}, refusedStorm, address, metrics.RejectLimit, 200 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(c.cfg)
				var slots []*Slot
				for i := range 10 {
					slot, refused := enter(g, c.remote(i))
					require.Nil(t, refused)
					slots = append(slots, slot)
				}
				require.Same(t, c.refused, attempt(g, c.remote(10)))
				require.InDelta(t, 1, testutil.ToFloat64(g.cfg.Metrics.Rejects[c.reject]), 0)
				require.InDelta(t, 1, testutil.ToFloat64(g.cfg.Metrics.Limits[c.refused.limit]), 0)
				if c.wait > 0 {
					slots[0].Release()
					require.NotNil(t, attempt(g, c.remote(10)), "closing a connection does not bypass the rate")
					time.Sleep(c.wait)
				} else {
					require.NotNil(t, attempt(g, c.remote(10)))
					slots[0].Release()
				}
				require.Nil(t, attempt(g, c.remote(10)))
			})
		})
	}
}

func address(i int) string { return fmt.Sprintf("192.0.2.%d", i) }

func same(int) string { return "192.0.2.1" }

func mapped(i int) string { return []string{"192.0.2.1", "::ffff:192.0.2.1", "::ffff:c000:201"}[i%3] }

func host(i int) string { return fmt.Sprintf("2001:db8:1:2:%x::%x", i, i) }

func subnet(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }

// Clients that are not authenticated take no place from others. One that authenticates when the gateway is full is refused.
func TestUnauthenticatedConnectionsTakeNoPlace(t *testing.T) {
	g := newGate(Config{MaxConnections: 2})
	request := httptest.NewRequest(http.MethodGet, "/v1/ws", nil)
	var slots []*Slot
	for i := range 100 {
		slot, refused := g.Admit(request, address(i))
		require.Nil(t, refused)
		slots = append(slots, slot)
	}
	require.True(t, slots[50].Authenticate())
	require.True(t, slots[51].Authenticate())
	require.False(t, slots[0].Authenticate())
	require.Same(t, refusedFull, attempt(g, address(200)))
	slots[0].Release() // takes no place with it
	require.Same(t, refusedFull, attempt(g, address(200)))
	slots[50].Release()
	slots[50].Release()
	require.True(t, slots[1].Authenticate())
	require.False(t, slots[2].Authenticate())
	for _, slot := range slots {
		slot.Release()
	}
	require.Zero(t, g.authenticated)
}

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
		first, _ := enter(g, host(1))
		second, _ := enter(g, subnet(5))
		require.Len(t, g.networks.peers, 1)
		first.Release()
		g.Purge()
		require.Len(t, g.addresses.peers, 2, "the allowance of the first is not full again")
		time.Sleep(time.Second)
		g.Purge()
		require.Len(t, g.addresses.peers, 1, "the second is still connected")
		second.Release()
		time.Sleep(time.Second)
		g.Purge()
		require.Empty(t, g.addresses.peers)
		require.Empty(t, g.networks.peers)
		require.Zero(t, g.authenticated)
	})
}

// Someone with many addresses can fill the table. That makes it forget those that were idle longest, one by one, and never one
// that is connected or has just used its allowance.
func TestAFullTableForgetsTheOldestOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(Config{ConnectRatePerIP: 1, ConnectRatePerNetwork: 1_000_000})
		connected, _ := enter(g, address(1))
		many := func(i int) string { return fmt.Sprintf("2001:db8:%x:%x::1", i/0x10000, i%0x10000) }
		for i := range maxIdle {
			slot, refused := enter(g, many(i))
			require.Nil(t, refused)
			slot.Release()
			time.Sleep(time.Microsecond)
		}
		for range 10 { // the spent allowance of an honest address, among them
			slot, refused := enter(g, address(2))
			require.Nil(t, refused)
			slot.Release()
		}
		for i := range 1000 {
			slot, refused := enter(g, many(maxIdle+i))
			require.Nil(t, refused)
			slot.Release()
		}
		require.Equal(t, maxIdle, g.addresses.idle.Len())
		require.Len(t, g.addresses.peers, maxIdle+1)
		require.Same(t, refusedRate, attempt(g, address(2)), "it is still remembered")
		connected.Release()
		require.Len(t, g.addresses.peers, maxIdle)
	})
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
