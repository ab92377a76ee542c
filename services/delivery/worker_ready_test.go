package delivery

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// A worker is ready while it can commit in at least one of its partitions. It reports which partitions are stopped.
func TestAWorkerWhosePartitionsAreStoppedIsNotReady(t *testing.T) {
	b := newBed(t, 2)
	w := b.startWorker(nil)
	health := func() telemetry.Health {
		admin, err := telemetry.NewAdmin(telemetry.AdminConfig{}, telemetry.Discard(), w.Checks())
		require.NoError(t, err)
		return admin.Health()
	}
	b.eventually("running", func() bool { return w.state(0) == "running" && w.state(1) == "running" })
	require.Equal(t, []string{"delivery", "nats"}, []string{health().Checks[0].Name, health().Checks[1].Name})
	require.True(t, health().Ready && !health().Degraded, "%+v", health())

	w.workers[1].Alarm(errors.New("a hole"))
	require.True(t, health().Ready && health().Degraded)
	require.Equal(t, "1 of 2 partitions are stopped: partition 1 is stopped: a hole", health().Checks[0].Reason)
	w.workers[0].Alarm(errors.New("a hole"))
	require.False(t, health().Ready)
	w.workers[0].Calm()
	w.workers[1].Calm()
	require.True(t, health().Ready && !health().Degraded)
}
