package stream

import (
	"encoding/binary"
	"math/bits"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
)

func hashOf(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// A trail contains the newest 32 events. At any greater distance d it contains an event within little more than d/2.
func TestATrailRemembersTheNewestEventsAndSomeOlderOnes(t *testing.T) {
	var tr trail
	require.True(t, tr.empty())
	for seq := uint64(1); seq <= 100_000; seq++ {
		tr.add(seq, hashOf(seq))
		require.LessOrEqual(t, len(tr.marks), 150)
		if seq%997 != 0 {
			continue
		}
		for back := range min(seq, trailNewest) {
			require.NotNil(t, tr.at(seq-back))
		}
		for i, m := range tr.marks[1:] {
			gap, distance := m.seq-tr.marks[i].seq, seq-m.seq
			require.LessOrEqual(t, gap, max(1, distance), "between %d and %d at %d", tr.marks[i].seq, m.seq, seq)
		}
	}
}

// Which old marks are dropped depends only on their seq and their distance to the newest one.
func TestWhichOldMarksAreDropped(t *testing.T) {
	for newest := uint64(1000); newest < 1064; newest++ { // every remainder of the divisions by small powers of two
		var tr trail
		var want []mark
		for seq := uint64(1); seq <= newest; seq++ {
			tr.marks = append(tr.marks, mark{seq: seq})
			distance := newest - seq
			half := uint64(1) << bits.Len64(distance) / 4 // of the distance, rounded down to a power of two
			if distance < trailNewest || seq%half == 0 {
				want = append(want, mark{seq: seq})
			}
		}
		tr.thin()
		require.Equal(t, want, tr.marks)
	}
}

func TestATrailTakesOnlyWhatFollows(t *testing.T) {
	var tr trail
	tr.add(1, hashOf(1)[:chain.PrefixSize-1])
	require.True(t, tr.empty(), "too short for a hash")
	tr.add(2, hashOf(2))
	tr.add(2, hashOf(7))
	tr.add(1, hashOf(1))
	require.Len(t, tr.marks, 1)
	require.True(t, tr.at(2).is(append(hashOf(2), 'x')), "only the beginning is compared")
	require.True(t, tr.at(2).is(hashOf(2)))
	require.False(t, tr.at(2).is(hashOf(3)))
	require.False(t, tr.at(2).is(hashOf(2)[:chain.PrefixSize-1]))
	require.Nil(t, tr.at(1))
	require.Nil(t, tr.at(3))
}

func TestATrailIsCut(t *testing.T) {
	var tr trail
	for seq := uint64(1); seq <= 9; seq++ {
		tr.add(seq, hashOf(seq))
	}
	require.Equal(t, 5, tr.below(5))
	tr.cut(5)
	require.EqualValues(t, 5, tr.newest().seq)
	tr.add(6, hashOf(60))
	require.True(t, tr.at(6).is(hashOf(60)))
	tr.cut(0)
	require.True(t, tr.empty())
}
