package torture

import "fmt"

// view is one reader's state of one conversation, computed from the items that it was shown.
type view struct {
	known bool
	// last is the newest seq. Every event from base to last was shown or is hidden.
	base, last uint64
	// hidden are the stretches that were reported as hidden.
	hidden []Span
}

// Span is a stretch of a log, inclusive; if Last is 0, the stretch has no end.
type Span struct{ First, Last uint64 }

func (s Span) holds(seq uint64) bool { return seq >= s.First && (s.Last == 0 || seq <= s.Last) }

// take advances by one item. Each event must directly follow the last one: the Go client drops repeats and fills gaps, so
// the application sees each event exactly once, in order. An error describes the fault. The view then continues from the
// item, so that a fault is reported once.
func (v *view) take(item Item) error {
	switch item.Kind {
	case ItemAttached:
		// A known conversation keeps its position, because the program was restarted with it.
		if !v.known {
			*v = view{known: true, base: item.First, last: item.First - 1}
		}
	case ItemDetached:
		known, last := v.known, v.last
		*v = view{}
		if known && item.Last > last {
			return fmt.Errorf("detached at seq %d, but shown only up to %d", item.Last, last)
		}
	case ItemEvent:
		known, last := v.known, v.last
		v.known, v.last = true, item.First
		switch {
		case !known:
			v.base = item.First
			return fmt.Errorf("seq %d of a conversation that was not attached", item.First)
		case item.First <= last:
			return fmt.Errorf("seq %d again or out of order, after %d", item.First, last)
		case item.First != last+1:
			return fmt.Errorf("a hole: seq %d follows %d", item.First, last)
		}
	case ItemHidden:
		last := v.last
		v.last = item.Last
		v.hidden = append(v.hidden, Span{item.First, item.Last})
		if !v.known || item.First != last+1 || item.Last < item.First {
			return fmt.Errorf("hidden stretch %d to %d follows %d", item.First, item.Last, last)
		}
	case ItemReopened:
	}
	return nil
}
