package stretch

import "github.com/runnelhq/runnel/pkg/ids"

// Event is an event of a page, reduced to its effect on the user's memberships.
type Event struct {
	Seq          ids.Seq
	Begins, Ends bool
	// Old reports whether the event is from before the session.
	Old bool
}

// Of divides the events of a page that a user may see into stretches. The events are in rising order; the page begins
// after the seq after. A new stretch begins where a membership begins, and where seqs are missing: the user may not see
// the missing events.
func Of(events []Event, after ids.Seq) []Stretch {
	var all []Stretch
	next := after + 1
	open := false // whether the last stretch continues
	for _, e := range events {
		switch {
		case open && !e.Begins && e.Seq == next:
		case e.Begins || e.Seq != next:
			all = append(all, Stretch{From: e.Seq, Old: e.Old})
		default:
			all = append(all, Stretch{Old: e.Old})
		}
		last := &all[len(all)-1]
		last.Last, last.Ended = e.Seq, e.Ends
		open, next = !e.Ends, e.Seq+1
	}
	return all
}
