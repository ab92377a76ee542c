package standalone

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// The embedded server has disabled JetStream: it is replaced, and a command commits without a restart of the process.
func TestNATSThatStopsStoringIsRestarted(t *testing.T) {
	s, err := New(t.Context(), configure(t, t.TempDir()), telemetry.Discard())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	require.EqualValues(t, 1, submit(t, s, "0192f3c0-0000-7000-8000-000000000001").GetSeq())
	former := s.nats.server()
	require.NoError(t, former.DisableJetStream())
	require.Eventually(t, func() bool {
		current := s.nats.server()
		return current != nil && current != former && current.JetStreamEnabled()
	}, time.Minute, 10*time.Millisecond)
	require.EqualValues(t, 1, submit(t, s, "0192f3c0-0000-7000-8000-000000000002").GetSeq())
}
