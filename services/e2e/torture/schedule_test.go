package torture

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var allParts = []string{"postgres", "nats-0", "history-0", "history-1", "delivery-0", "delivery-1", "gateway-0", "gateway-1"}

func schedule(seed uint64) []Fault {
	return Schedule(rand.New(rand.NewPCG(seed, 0)), allParts, time.Minute, true)
}

func TestASeedGivesOneSchedule(t *testing.T) {
	first, again := schedule(7), schedule(7)
	require.Equal(t, first, again)
	require.NotEqual(t, first, schedule(8))
}

func TestSchedulesKeepMostPartsUp(t *testing.T) {
	for seed := range uint64(50) {
		faults := schedule(seed)
		require.Greater(t, len(faults), 10)
		kinds := map[FaultKind]bool{}
		for n, f := range faults {
			kinds[f.Kind] = true
			require.Less(t, f.At+f.For, time.Minute)
			require.LessOrEqual(t, f.For, maxPause)
			down := 0
			for _, other := range faults[:n] {
				require.LessOrEqual(t, other.At, f.At)
				if other.At+other.For > f.At {
					require.NotEqual(t, other.Part, f.Part)
					down++
				}
			}
			require.Less(t, down, maxDown)
			if f.Kind == FaultWipe {
				require.Equal(t, "nats-0", f.Part)
			}
		}
		require.True(t, kinds[FaultKill] && kinds[FaultPause])
	}
}

func TestSchedulesBeginWithWhatPlantedBugsCannotSurvive(t *testing.T) {
	faults := schedule(1)
	require.Equal(t, FaultPause, faults[0].Kind)
	require.Equal(t, "history-0", faults[0].Part)
	require.Equal(t, FaultPause, faults[1].Kind)
	require.Equal(t, "delivery-0", faults[1].Part)
}
