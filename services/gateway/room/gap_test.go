package room

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEventsOfALiveMessageAreAChain(t *testing.T) {
	log := branch(nil, 5, "x")
	entries := newEntries(log)
	require.True(t, chained(nil, entries))
	require.True(t, chained(log[1].GetHash(), entries[2:]))
	require.False(t, chained(log[2].GetHash(), entries[2:]))
	require.False(t, chained(nil, []*entry{entries[0], entries[2]}))
	other := newEntries(branch(log[:2], 4, "y"))
	require.False(t, chained(nil, []*entry{entries[2], other[3]}))
}
