package store

import (
	"errors"
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// View is the part of a log that a viewer may see.
type View struct {
	stretches []stretch // rising and disjoint
	member    bool
}

type stretch struct{ first, last ids.Seq }

// Whole returns the view of a reader who may see all events up to head.
func Whole(head ids.Seq) View { return View{stretches: []stretch{{1, head}}} }

// Admit adds a membership to a view; call it in order of joined. The membership covers the events from joined to left, or
// to head if left is nil and the membership has not ended. head and all memberships must come from one snapshot;
// otherwise an event after leaving could be shown.
func (v *View) Admit(joined ids.Seq, left *ids.Seq, head ids.Seq) {
	last := head
	if left != nil {
		last = *left
	}
	v.member = left == nil
	if joined <= last {
		v.stretches = append(v.stretches, stretch{joined, last})
	}
}

// Empty reports whether the view shows no event: the viewer never was a member.
func (v *View) Empty() bool { return len(v.stretches) == 0 }

// Member reports whether the viewer is a member now.
func (v *View) Member() bool { return v.member }

// shows reports whether the viewer may see an event.
func (v *View) shows(seq ids.Seq) bool {
	return slices.ContainsFunc(v.stretches, func(s stretch) bool { return s.first <= seq && seq <= s.last })
}

// Fetch reads at most limit events with first ≤ seq ≤ last, rising or falling. It passes each event with the size of its
// stored body to take, until take returns false. It returns a *GapError if the row before an event is missing.
type Fetch func(first, last ids.Seq, backward bool, limit int, take takeEvent) error

type takeEvent = func(event *conversationv1.Event, size int) bool

// eventOverhead is the assumed size of an event without its body, for the size of a page.
const eventOverhead = 256

// Page cuts a page out of the events that a viewer may see. Stretches between the page's events that the viewer may not see
// are reported as hidden, so that a reader can distinguish them from a hole. A rising page also reports the stretch before
// the viewer's first membership, which that reader must skip.
//
// More is set if the page is full, or if it ends before rows that are missing in the table. A page that would begin at missing rows is
// a *GapError. If the newest rows are missing, the reader does not repeat the read forever: it sees a head that the page did not
// reach.
func Page(view View, request *historyv1.ReadRequest, fetch Fetch) (*historyv1.ReadResponse, error) {
	page := &page{limit: Limit(request.GetLimit())}
	page.Member = view.member
	page.Head = uint64(view.stretches[len(view.stretches)-1].last)
	read := page.rising
	if request.GetBackward() {
		read = page.falling
	}
	if err := read(view, request, fetch); err != nil {
		return nil, err
	}
	return &page.ReadResponse, nil
}

type page struct {
	historyv1.ReadResponse
	limit, size int
	full        bool
}

func (p *page) take(event *conversationv1.Event, size int) bool {
	p.Events = append(p.Events, event)
	p.size += size + eventOverhead
	p.full = len(p.Events) >= p.limit || p.size >= MaxPageBytes
	return !p.full
}

// unlessGap ends the page before a gap, because the events before it can be read. It returns an error only if the page
// would begin at the gap.
func (p *page) unlessGap(err error) error {
	var gap *GapError
	if errors.As(err, &gap) && len(p.Events) > 0 {
		p.full = true
		return nil
	}
	return err
}

func (p *page) hide(first, last ids.Seq) {
	p.Hidden = append(p.Hidden, &conversationv1.Range{First: uint64(first), Last: uint64(last)})
}

func (p *page) rising(view View, request *historyv1.ReadRequest, fetch Fetch) error {
	next := ids.Seq(request.GetAfter() + 1)
	for _, visible := range view.stretches {
		if p.full {
			break
		}
		if visible.last < next {
			continue
		}
		if visible.first > next {
			p.hide(next, visible.first-1)
			next = visible.first
		}
		if err := p.unlessGap(fetch(next, visible.last, false, p.limit-len(p.Events), p.take)); err != nil {
			return err
		}
		next = visible.last + 1
	}
	p.More = p.full && p.Events[len(p.Events)-1].GetSeq() < p.Head
	return nil
}

func (p *page) falling(view View, request *historyv1.ReadRequest, fetch Fetch) error {
	next := ids.Seq(p.Head)
	if before := request.GetBefore(); before > 0 && before <= p.Head {
		next = ids.Seq(before - 1)
	}
	for _, visible := range slices.Backward(view.stretches) {
		if p.full {
			break
		}
		if visible.first > next {
			continue
		}
		if visible.last < next {
			p.hide(visible.last+1, next)
			next = visible.last
		}
		if err := p.unlessGap(fetch(visible.first, next, true, p.limit-len(p.Events), p.take)); err != nil {
			return err
		}
		next = visible.first - 1
	}
	slices.Reverse(p.Hidden)
	p.More = p.full && ids.Seq(p.Events[len(p.Events)-1].GetSeq()) > view.stretches[0].first
	return nil
}
