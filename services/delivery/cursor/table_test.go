package cursor

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
)

// tableOf makes a table of cursors, of which some are ahead of the store.
func tableOf(cursors map[ids.User]Position, moved ...ids.User) *Table {
	users := slices.Collect(maps.Keys(cursors))
	t := TableOf(len(users), func(i int) (ids.User, Position) { return users[i], cursors[users[i]] })
	for _, user := range moved {
		i, _ := t.find(user)
		t.rows[i].moved = true
		t.moved++
	}
	return &t
}

// Whatever is done to a table, it is the same as two maps: the cursors, and those that are ahead of the store.
func TestATableIsTwoMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.Custom(func(t *rapid.T) ids.User { return ids.User(rapid.StringMatching(`[a-d][ab]?`).Draw(t, "name")) })
		cursors, moved := map[ids.User]Position{}, map[ids.User]bool{}
		for _, u := range rapid.SliceOfN(user, 0, 5).Draw(t, "loaded") {
			cursors[u] = Position{Delivered: 1}
		}
		table := tableOf(cursors)
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			u := user.Draw(t, "user")
			at, present := cursors[u]
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				require.Equal(t, !present, table.Add(u))
				cursors[u] = at
			case 1:
				require.Equal(t, present, table.Remove(u))
				delete(cursors, u)
				delete(moved, u)
			case 2:
				to := ids.Seq(rapid.IntRange(0, 12).Draw(t, "to"))
				advanced := present && at.Advance(to, to/2, 10, 7)
				require.Equal(t, advanced, table.Advance(u, to, to/2, 10, 7))
				if advanced {
					cursors[u], moved[u] = at, true
				}
			default:
				require.Equal(t, len(moved), table.Moved())
				table.Collect(func(u ids.User, at Position) {
					require.True(t, moved[u])
					require.Equal(t, cursors[u], at)
					delete(moved, u)
				})
				require.Empty(t, moved)
			}
			require.Equal(t, len(cursors), table.Len())
			require.Equal(t, len(moved), table.Moved())
			list := table.Protos()
			for i, u := range slices.Sorted(maps.Keys(cursors)) {
				require.Equal(t, string(u), list[i].GetUserId())
				require.Equal(t, cursors[u], PositionOf(list[i]))
			}
		}
	})
}

// TableOf makes one cursor for a user that is listed twice.
func TestATableHasEachUserOnce(t *testing.T) {
	users := []ids.User{"bob", "ann", "bob"}
	table := TableOf(len(users), func(i int) (ids.User, Position) { return users[i], Position{} })
	require.Equal(t, 2, table.Len())
	require.True(t, table.Remove("bob"))
	require.False(t, table.Remove("bob"))
}
