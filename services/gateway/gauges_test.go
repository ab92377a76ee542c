package gateway

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

func TestWhatWaitsInLanesIsMeasured(t *testing.T) {
	g := &Gateway{}
	g.hub = newHub(g)
	q := newQueues(g)
	registry := prometheus.NewPedanticRegistry()
	require.NoError(t, registry.Register(q))
	g.hub.lanes[0].live <- &nats.Msg{}
	families, err := registry.Gather()
	require.NoError(t, err)
	for _, family := range families {
		if family.GetName() == "runnel_gateway_lane_messages" {
			require.Len(t, family.GetMetric(), len(g.hub.lanes))
			require.Equal(t, 1, int(family.GetMetric()[0].GetGauge().GetValue()))
			return
		}
	}
	require.Fail(t, "lanes are not measured")
}
