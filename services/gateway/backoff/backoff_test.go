package backoff_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/gateway/backoff"
)

func TestWaitsGrowUpToABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		longest := 50 * time.Millisecond
		wait := time.Duration(0)
		for range 10 {
			begun := time.Now()
			wait = backoff.Wait(nil, wait)
			waited := time.Since(begun)
			require.GreaterOrEqual(t, waited, longest/2)
			require.LessOrEqual(t, waited, longest)
			longest = min(2*longest, 2*time.Second)
			require.Equal(t, longest, wait)
		}
		done := make(chan struct{})
		close(done)
		begun := time.Now()
		backoff.Wait(done, time.Hour)
		require.Zero(t, time.Since(begun), "the end is not waited for")
	})
}
