package gateway

import (
	"math"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// What a client acknowledges is held to what there is, also while its gateway does not know the conversation's head yet.
func TestAcknowledgementsAreHeldToWhatThereIs(t *testing.T) {
	g := &Gateway{metrics: metrics.New(prometheus.NewRegistry()), recorder: flight.NewRecorder(64)}
	r := &room{hub: newHub(g), id: "c", key: g.recorder.KeyOf("c")}
	// The list of conversations said 5, and the room has not heard more.
	s := &seat{conn: &conn{gw: g, number: 1, user: &user{id: "alice"}}, sent: 3, acked: 3, told: 5}
	s.room.Store(r)

	require.True(t, s.acknowledged(math.MaxUint64, 0, time.Now(), time.Second), "whether there is such an event is for the owner to say")
	require.Equal(t, uint64(3), s.acked, "but it is not believed")
	require.True(t, s.acknowledged(4, 4, time.Now(), time.Second))
	require.Equal(t, uint64(4), s.acked)

	r.ready, r.head, r.seen = true, 4, 4
	require.True(t, s.acknowledged(5, 5, time.Now(), time.Second), "the live message of 5 is on its way")
	require.False(t, s.acknowledged(6, 0, time.Now(), time.Second))
	require.False(t, s.acknowledged(0, 6, time.Now(), time.Second))
	require.Equal(t, uint64(5), s.acked)
	for _, step := range trail(g.recorder, r.key, 5) {
		require.Equal(t, gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, step.GetKind())
		require.Equal(t, uint64(5), step.GetLast())
	}
}

// trail returns the steps of connection 1 that cover a seq.
func trail(recorder *flight.Recorder, key flight.Key, seq uint64) []*gatewayv1.Step {
	trail := &gatewayv1.Trail{}
	recorder.ExplainConnection(trail, 1, key, seq)
	return trail.GetSteps()
}
