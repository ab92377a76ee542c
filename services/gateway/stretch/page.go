package stretch

import "github.com/runnelhq/runnel/pkg/ids"

// Event is an event of a page, as far as memberships of the user are concerned.
type Event struct {
	Seq          ids.Seq
	Begins, Ends bool
	// Old reports whether the event is from before the session.
	Old bool
}

// Of divides the events of a page that a user may see, in rising seq, into stretches; the page follows the seq after. A new
// stretch begins where a membership begins, and where seqs are missing: those are events that the user may not see.
func Of(events []Event, after ids.Seq) []Stretch {
	var all []Stretch
	next := after + 1
	open := false // the last of all goes on
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
