package bench

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
)

func TestGroupsAreSpreadEvenlyOverUsers(t *testing.T) {
	for _, sizes := range []sizes{tiny, full} {
		a := &assembly{crowd: &crowd{clients: make([]*load.Client, sizes.many.users)}}
		for i := range a.clients {
			a.clients[i] = &load.Client{Index: i}
		}
		groups := sizes.many.idle / sizes.many.users * sizes.many.users
		memberships := make([]int, len(a.clients))
		seen := map[[4]int]bool{}
		for g := range groups {
			var members [4]int
			for i := range members {
				members[i] = a.member(g, i, len(members)).Index
				memberships[members[i]]++
			}
			slices.Sort(members[:])
			require.Len(t, slices.Compact(slices.Clone(members[:])), len(members), "group %d", g)
			require.False(t, seen[members], "group %d", g)
			seen[members] = true
		}
		require.Equal(t, groups*4/len(a.clients), slices.Min(memberships))
		require.Equal(t, groups*4/len(a.clients), slices.Max(memberships))
	}
}
