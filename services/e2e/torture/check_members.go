package torture

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Stay is a stored membership, from its beginning to its end.
type Stay struct {
	User string
	Span
	// Began and Ended are the positions of the events at First and Last. Ended is zero for a present membership.
	Began, Ended Position
}

func (s Stay) String() string {
	return fmt.Sprintf("%s from seq %d at %v to seq %d at %v", s.User, s.First, s.Began, s.Last, s.Ended)
}

// CheckStays checks I11 for memberships, including past ones: each begins and ends with an event of the log, at the
// position of that event.
func CheckStays(_ History, c Content) (found []Violation) {
	wanted := stays(c)
	for id := range union(wanted, c.Stays) {
		stored := slices.SortedFunc(slices.Values(c.Stays[id]), earlier)
		if !slices.Equal(wanted[id], stored) {
			found = append(found, violation("I11", "%s: its memberships: the log gives %v, stored is %v", id, wanted[id], stored))
		}
	}
	return found
}

// stays returns the memberships of each conversation, computed from its log and the positions of its events.
func stays(c Content) map[string][]Stay {
	type event struct {
		conversation string
		seq          uint64
	}
	positions := map[event]Position{}
	for _, place := range c.Places {
		positions[event{place.Conversation, place.Seq}] = place.Position
	}
	all := map[string][]Stay{}
	for id, users := range Memberships(c) {
		for _, user := range slices.Sorted(maps.Keys(users)) {
			for _, span := range users[user] {
				all[id] = append(all[id], Stay{user, span, positions[event{id, span.First}], positions[event{id, span.Last}]})
			}
		}
	}
	return all
}

func earlier(a, b Stay) int {
	return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.First, b.First))
}
