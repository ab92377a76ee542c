package store_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// log is a whole log of head events, each with a body of some size.
type log struct{ sizes []int }

func (l log) fetch(first, last ids.Seq, backward bool, limit int, take func(*conversationv1.Event, int) bool) error {
	var seqs []uint64
	for seq := first; seq <= last; seq++ {
		seqs = append(seqs, uint64(seq))
	}
	if backward {
		slices.Reverse(seqs)
	}
	for i, seq := range seqs {
		if i == limit || !take(&conversationv1.Event{Seq: seq}, l.sizes[seq-1]) {
			return nil
		}
	}
	return nil
}

// TestPagesCoverExactlyWhatMayBeSeen reads random views page by page, in both directions, from any position, and compares
// the result with the memberships: no other event is shown, none is left out, and events and hidden ranges are contiguous.
func TestPagesCoverExactlyWhatMayBeSeen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		head := rapid.Uint64Range(1, 60).Draw(t, "head")
		l := log{sizes: make([]int, head)}
		for i := range l.sizes {
			l.sizes[i] = rapid.SampledFrom([]int{10, 1000, store.MaxPageBytes / 3}).Draw(t, "size")
		}
		view, visible, member := drawView(t, head)
		if len(visible) == 0 {
			require.True(t, view.Empty())
			return
		}
		backward := rapid.Bool().Draw(t, "backward")
		from := rapid.Uint64Range(0, head+3).Draw(t, "from")
		request := &historyv1.ReadRequest{After: from, Before: from, Backward: backward}
		var seen []uint64
		for {
			request.Limit = rapid.Uint32Range(0, 7).Draw(t, "limit")
			page, err := store.Page(view, request, l.fetch)
			require.NoError(t, err)
			require.Equal(t, visible[len(visible)-1], page.GetHead())
			require.Equal(t, member, page.GetMember())
			seen = append(seen, seqsOf(page)...)
			requireNoHole(t, page)
			if request.GetLimit() > 0 {
				require.LessOrEqual(t, len(page.GetEvents()), int(request.GetLimit()))
			}
			if !backward && len(page.GetEvents())+len(page.GetHidden()) > 0 {
				require.Equal(t, request.GetAfter()+1, lowest(page), "a rising page begins where the reader stands")
			}
			if !page.GetMore() {
				break
			}
			require.NotEmpty(t, page.GetEvents())
			request.After, request.Before = seen[len(seen)-1], seen[len(seen)-1]
		}
		var want []uint64
		for _, seq := range visible {
			if !backward && seq > from || backward && (from == 0 || seq < from) {
				want = append(want, seq)
			}
		}
		if backward {
			slices.Reverse(want)
		}
		require.Equal(t, want, seen)
	})
}

func drawView(t *rapid.T, head uint64) (view store.View, visible []uint64, member bool) {
	next := ids.Seq(rapid.Uint64Range(1, head).Draw(t, "first joined"))
	for next <= ids.Seq(head) {
		length := ids.Seq(rapid.Uint64Range(1, 15).Draw(t, "length"))
		left := next + length - 1
		member = left > ids.Seq(head)
		if member {
			view.Admit(next, nil, ids.Seq(head))
		} else {
			view.Admit(next, &left, ids.Seq(head))
		}
		for seq := next; seq <= min(left, ids.Seq(head)); seq++ {
			visible = append(visible, uint64(seq))
		}
		if member || rapid.Bool().Draw(t, "never came back") {
			break
		}
		next = left + ids.Seq(rapid.Uint64Range(1, 10).Draw(t, "away"))
	}
	return view, visible, member
}

func seqsOf(page *historyv1.ReadResponse) (seqs []uint64) {
	for _, event := range page.GetEvents() {
		seqs = append(seqs, event.GetSeq())
	}
	return seqs
}

// all returns every seq of a page, shown or hidden, rising.
func all(page *historyv1.ReadResponse) []uint64 {
	seqs := seqsOf(page)
	for _, hidden := range page.GetHidden() {
		for seq := hidden.GetFirst(); seq <= hidden.GetLast(); seq++ {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	return seqs
}

func lowest(page *historyv1.ReadResponse) uint64 { return all(page)[0] }

func requireNoHole(t require.TestingT, page *historyv1.ReadResponse) {
	seqs := all(page)
	for i := 1; i < len(seqs); i++ {
		require.Equal(t, seqs[i-1]+1, seqs[i], "a hole or a repeat inside the page")
	}
	for i := 1; i < len(page.GetHidden()); i++ {
		require.Less(t, page.GetHidden()[i-1].GetLast(), page.GetHidden()[i].GetFirst(), "hidden ranges rise")
	}
}
