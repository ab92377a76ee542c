package cursor

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// Each step counts the members whose cursor is at it or above.
func TestStepsCountTheMembersAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cursors := rapid.SliceOfN(rapid.Uint64Range(0, 60), 0, 100).Draw(t, "cursors")
		at := map[uint64]uint32{}
		for _, seq := range cursors {
			at[seq]++
		}
		steps := stepsOf(at)
		require.LessOrEqual(t, len(steps), maxSteps)
		for i, step := range steps {
			require.NotZero(t, step.GetSeq())
			if i > 0 {
				require.Less(t, step.GetSeq(), steps[i-1].GetSeq())
			}
			var n uint32
			for _, seq := range cursors {
				if seq >= step.GetSeq() {
					n++
				}
			}
			require.Equal(t, n, step.GetMembers())
		}
	})
}
