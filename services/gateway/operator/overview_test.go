package operator

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/statuspage"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// The overview counts the current connections and the totals.
func TestTheOverviewAddsUp(t *testing.T) {
	s := newStage(t)
	s.store.Put(gatewaytest.Branch(nil, 3, "x"))
	s.many("ann", 2)
	s.many("bob", 1)
	s.open()
	s.pending = 5
	s.deps.Metrics.Outcomes[metrics.OutcomeCommitted].Add(3)
	s.deps.Metrics.Outcomes[metrics.OutcomeRepeated].Add(2)
	s.deps.Metrics.Deliveries.Add(7)
	s.deps.Metrics.Retries.Add(8)
	s.deps.Metrics.Gaps.Add(9)
	o := s.Overview()
	require.Equal(t, "gw-1", o.Gateway)
	require.NotEmpty(t, o.Version)
	require.Equal(t, 4, o.Connections)
	require.Equal(t, 2, o.Users, "an unauthenticated connection has no user")
	require.Equal(t, 1, o.Conversations)
	require.Equal(t, 5, o.CommandsPending)
	require.Equal(t, uint64(4), o.Connects)
	require.Equal(t, uint64(5), o.Commands)
	require.Equal(t, uint64(7), o.Deliveries)
	require.Equal(t, uint64(8), o.Retries)
	require.Equal(t, uint64(9), o.Gaps)
	require.NotZero(t, o.BytesIn)
	require.NotZero(t, o.BytesOut)
	require.False(t, o.Draining)
	require.False(t, o.Started.IsZero())
	require.GreaterOrEqual(t, o.ExplainWindow, 0*patience)

	s.draining = true
	got, err := s.GetGateway(t.Context(), &gatewayv1.GetGatewayRequest{})
	require.NoError(t, err)
	require.True(t, got.GetDraining())
	require.Equal(t, uint32(4), got.GetConnections())
	require.Equal(t, uint32(2), got.GetUsers())
	require.Equal(t, uint32(1), got.GetConversations())
	require.Equal(t, o.Version, got.GetVersion())
	require.Equal(t, o.Started.UnixMilli(), got.GetStartedMs())
}

// Gauges are measured at each scrape, and have valid names.
func TestGaugesAreMeasured(t *testing.T) {
	s := newStage(t)
	registry := prometheus.NewPedanticRegistry()
	s.RegisterGauges(registry)
	problems, err := testutil.GatherAndLint(registry)
	require.NoError(t, err)
	require.Empty(t, problems)
	value := func(name string) float64 {
		families, err := registry.Gather()
		require.NoError(t, err)
		for _, family := range families {
			if family.GetName() == "runnel_gateway_"+name {
				return sum(family.GetMetric())
			}
		}
		require.Fail(t, "no such gauge", name)
		return 0
	}
	require.InDelta(t, 0, value("draining"), 0)
	require.InDelta(t, 1, value("level"), 0)
	require.InDelta(t, 1000, value("max_connections"), 0)
	require.InDelta(t, 0, value("commands_pending"), 0)
	s.draining, s.level, s.pending = true, 2, 6
	require.InDelta(t, 1, value("draining"), 0)
	require.InDelta(t, 2, value("level"), 0)
	require.InDelta(t, 6, value("commands_pending"), 0)
	require.InDelta(t, 0, value("send_queue_bytes"), 0)
	require.InDelta(t, 0, value("send_queue_max_bytes"), 0)
	require.InDelta(t, 0, value("shard_messages"), 0)
	require.GreaterOrEqual(t, value("explain_window_seconds"), 0.0)

	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.connect("ann")
	require.InDelta(t, 0, value("recent_bytes"), 0)
	log = gatewaytest.Branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	ann.next()
	require.Greater(t, value("recent_bytes"), 0.0)
}

func sum(all []*dto.Metric) (total float64) {
	for _, m := range all {
		total += m.GetGauge().GetValue()
	}
	return total
}

// The status page has a row for each connection, and its charts use metrics that exist.
func TestTheStatusPageShowsConnections(t *testing.T) {
	s := newStage(t)
	ann := s.connect("ann")
	table, err := s.ConnectionTable()(t.Context())
	require.NoError(t, err)
	require.Empty(t, table.Note)
	require.Len(t, table.Rows, 1)
	require.Len(t, table.Rows[0], len(table.Columns))
	require.Equal(t, "ann", table.Rows[0][0])
	require.Equal(t, "d-ann", table.Rows[0][1])
	require.Equal(t, ann.id, table.Rows[0][len(table.Columns)-1])
	require.Regexp(t, `^1 open, users: 1, limit: \d+$`, table.Summary)

	registry := prometheus.NewRegistry()
	metrics.New(registry)
	s.RegisterGauges(registry)
	families, err := registry.Gather()
	require.NoError(t, err)
	names := map[string]bool{}
	for _, family := range families {
		names[family.GetName()] = true
	}
	for _, chart := range Charts() {
		require.True(t, names[chart.Metric], chart.Metric)
	}
	for _, stage := range Stages() {
		for _, series := range []statuspage.Series{stage.Rate, stage.Latency, stage.Backlog} {
			require.True(t, series.Metric == "" || names[series.Metric], series.Metric)
		}
	}
}
