package metrics_test

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// counted returns the series of one family that are not zero, by their label.
func counted(t *testing.T, registry *prometheus.Registry, family string) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	counted := map[string]float64{}
	for _, f := range families {
		if f.GetName() != "runnel_gateway_"+family {
			continue
		}
		for _, m := range f.GetMetric() {
			if n := value(m); n != 0 {
				counted[m.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return counted
}

func value(m *dto.Metric) float64 {
	if m.GetHistogram() != nil {
		return float64(m.GetHistogram().GetSampleCount())
	}
	return m.GetCounter().GetValue()
}

// A command is counted once, by its outcome; only newly committed commands are measured.
func TestOutcomesAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	m.Outcome(&conversationv1.Outcome{Seq: 1}, time.Second)
	m.Outcome(&conversationv1.Outcome{Seq: 1, Repeated: true}, time.Second)
	m.Outcome(&conversationv1.Outcome{Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}}, time.Second)
	m.Outcome(&conversationv1.Outcome{Error: &conversationv1.Error{Code: 9999}}, time.Second)
	require.Equal(t, map[string]float64{"committed": 1, "repeated": 1, "forbidden": 1, "unknown": 1}, counted(t, registry, "commands_total"))
	require.Equal(t, map[string]float64{"committed": 1}, counted(t, registry, "command_seconds"))
}

// Unknown codes and outcomes are counted as other, or not at all: they never create a series.
func TestCodesAreCountedByName(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	for _, code := range errcode.CloseCodes {
		m.Closed(code.Code)
	}
	m.Closed(0)
	m.Closed(1000)
	closes := counted(t, registry, "closes_total")
	require.Len(t, closes, len(errcode.CloseCodes)+1)
	require.InDelta(t, 2, closes["other"], 0)
	require.InDelta(t, 1, closes[errcode.CloseSlow.String()], 0)

	for _, code := range errcode.Codes {
		m.Refused(code.Code)
	}
	m.Refused(9999)
	require.Len(t, counted(t, registry, "refusals_total"), len(errcode.Codes))
}

// Every limit, rejection and purpose has its own series from the start, so that rates can be computed.
func TestLabelsAreThereFromTheStart(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := metrics.New(registry)
	for family, counters := range map[string][]prometheus.Counter{
		"limit_refusals_total": m.Limits[:], "connects_refused_total": m.Rejects[:], "history_calls_total": m.Reads[:],
	} {
		count, err := testutil.GatherAndCount(registry, "runnel_gateway_"+family)
		require.NoError(t, err)
		require.Equal(t, len(counters), count)
		for i, c := range counters {
			c.Add(float64(i + 1))
		}
		named := counted(t, registry, family)
		require.Len(t, named, len(counters), "no two share a series")
		require.NotContains(t, named, "")
	}
	m.Limits[metrics.LimitSendQueue].Add(100)
	require.InDelta(t, 111, counted(t, registry, "limit_refusals_total")["send_queue_bytes"], 0)
	m.Rejects[metrics.RejectUnavailable].Add(100)
	require.InDelta(t, 109, counted(t, registry, "connects_refused_total")["unavailable"], 0)
	m.Reads[metrics.ReadViews].Add(100)
	require.InDelta(t, 110, counted(t, registry, "history_calls_total")["views"], 0)
}
