package room

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// A client's acknowledgement is checked against the head, also while its gateway does not know the head yet.
func TestAcknowledgementsAreHeldToWhatThereIs(t *testing.T) {
	hub := NewHub(t.Context(), Config{Metrics: metrics.New(prometheus.NewRegistry()), Recorder: flight.NewRecorder(64), AckTimeout: time.Second})
	r := &Room{hub: hub, id: "c", key: hub.cfg.Recorder.KeyOf("c")}
	// The list of conversations has head 5, and the room has not received more.
	s := &Subscription{to: &Listener{User: "alice", Number: 1}, sent: 3, acked: 3, told: 5}
	s.room.Store(r)

	require.True(t, s.Acknowledge(math.MaxUint64, 0, time.Now()), "the partition's owner decides whether the event exists")
	require.Equal(t, ids.Seq(3), s.acked, "but the position is not recorded")
	require.True(t, s.Acknowledge(4, 4, time.Now()))
	require.Equal(t, ids.Seq(4), s.acked)

	r.ready, r.head, r.seen = true, 4, 4
	require.True(t, s.Acknowledge(5, 5, time.Now()), "the live message of 5 has not arrived yet")
	require.False(t, s.Acknowledge(6, 0, time.Now()))
	require.False(t, s.Acknowledge(0, 6, time.Now()))
	require.Equal(t, ids.Seq(5), s.acked)
	for _, step := range trail(hub.cfg.Recorder, r.key, 5) {
		require.Equal(t, gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, step.GetKind())
		require.Equal(t, uint64(5), step.GetLast())
	}
}

// trail returns the steps of connection 1 that cover a seq.
func trail(recorder *flight.Recorder, key flight.Key, seq uint64) []*gatewayv1.Step {
	trail := &gatewayv1.Trail{}
	recorder.ExplainConnection(trail, 1, key, ids.Seq(seq))
	return trail.GetSteps()
}

// The delay of an event is measured once, by the first acknowledgement of a user other than its sender.
func TestADeliveryIsMeasuredOnce(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	sender, ann, bob := s.client("cem", frame.Proto), s.client("ann", frame.Proto), s.client("bobby", frame.Proto)
	for _, c := range []*client{sender, ann, bob} {
		c.resume()
	}
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(r, log[3])
	measured := func() uint64 {
		var m dto.Metric
		histogram, is := s.metrics.Delivered.(prometheus.Metric)
		require.True(t, is)
		require.NoError(t, histogram.Write(&m))
		return m.GetHistogram().GetSampleCount()
	}
	require.True(t, sender.subscription().Acknowledge(4, 0, time.Now()))
	require.Zero(t, measured())
	require.True(t, ann.subscription().Acknowledge(4, 0, time.Now()))
	require.Equal(t, uint64(1), measured())
	require.True(t, bob.subscription().Acknowledge(4, 0, time.Now()))
	require.Equal(t, uint64(1), measured())
}
