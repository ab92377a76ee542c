package rpc

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestOpenBreakersNeedAttention(t *testing.T) {
	registry := prometheus.NewRegistry()
	table, err := BreakerTable(registry)(t.Context())
	require.NoError(t, err)
	require.Empty(t, table.Title, "a process that calls nothing shows no table")

	tel := telemetry.Discard()
	newBreaker("history", ClientConfig{}, tel)
	table, err = BreakerTable(tel.Registry)(t.Context())
	require.NoError(t, err)
	require.Equal(t, [][]string{{"history", "closed: calls are made", "0"}}, table.Rows, "the metrics have the names that breaker.go gives them")

	state := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "runnel_rpc_breaker_state", Help: "As breaker.go registers it."}, []string{"service"})
	rejected := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "runnel_rpc_breaker_rejected_total", Help: "As breaker.go registers it."}, []string{"service", "reason"})
	registry.MustRegister(state, rejected)
	state.WithLabelValues("history").Set(0)
	state.WithLabelValues("delivery").Set(0)
	table, err = BreakerTable(registry)(t.Context())
	require.NoError(t, err)
	require.Empty(t, table.Attention)
	require.Equal(t, [][]string{{"delivery", "closed: calls are made", "0"}, {"history", "closed: calls are made", "0"}}, table.Rows)

	state.WithLabelValues("history").Set(1)
	rejected.WithLabelValues("history", "open").Add(12)
	rejected.WithLabelValues("history", "full").Add(100)
	table, err = BreakerTable(registry)(t.Context())
	require.NoError(t, err)
	require.Contains(t, table.Attention, "Calls to history failed too often")
	require.Equal(t, []int{1}, table.Marked)
	require.Equal(t, []string{"history", "open: calls fail at once", "12"}, table.Rows[1])

	state.WithLabelValues("history").Set(2)
	table, err = BreakerTable(registry)(t.Context())
	require.NoError(t, err)
	require.Equal(t, "half open: one call tries the service", table.Rows[1][1])
}
