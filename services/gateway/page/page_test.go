package page

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

func pageOf(head uint64, more bool, hidden []*conversationv1.Range, seqs ...uint64) *historyv1.ReadResponse {
	page := &historyv1.ReadResponse{Head: head, More: more, Hidden: hidden}
	for _, seq := range seqs {
		page.Events = append(page.Events, &conversationv1.Event{ConversationId: gatewaytest.GroupID, Seq: seq})
	}
	return page
}

func hiddenFrom(first, last uint64) *conversationv1.Range {
	return &conversationv1.Range{First: first, Last: last}
}

func TestPagesAreCheckedForHoles(t *testing.T) {
	type ranges = []*conversationv1.Range
	for name, c := range map[string]struct {
		page    *historyv1.ReadResponse
		from    uint64
		falling bool
		missing uint64 // 0 for none
	}{
		"rising":                          {pageOf(9, true, nil, 4, 5, 6), 3, false, 0},
		"nothing more":                    {pageOf(3, false, nil), 3, false, 0},
		"beyond the head":                 {pageOf(3, false, nil), 8, false, 0},
		"hidden first":                    {pageOf(6, false, ranges{hiddenFrom(4, 5)}, 6), 3, false, 0},
		"hidden between":                  {pageOf(9, true, ranges{hiddenFrom(5, 7)}, 4, 8), 3, false, 0},
		"hidden last":                     {pageOf(7, true, ranges{hiddenFrom(5, 7)}, 4), 3, false, 0},
		"a hole at the beginning":         {pageOf(9, true, nil, 5, 6), 3, false, 4},
		"a hole in the middle":            {pageOf(9, true, nil, 4, 6), 3, false, 5},
		"a hole before hidden events":     {pageOf(9, true, ranges{hiddenFrom(6, 7)}, 4), 3, false, 5},
		"a hole after hidden events":      {pageOf(9, true, ranges{hiddenFrom(4, 5)}, 7), 3, false, 6},
		"a hole at the end":               {pageOf(6, false, nil, 4, 5), 3, false, 6},
		"nothing where there should be":   {pageOf(6, false, nil), 3, false, 4},
		"an event twice":                  {pageOf(9, true, nil, 4, 4), 3, false, 5},
		"falling":                         {pageOf(9, true, nil, 6, 5, 4), 7, true, 0},
		"falling from the head":           {pageOf(9, true, nil, 9, 8), 0, true, 0},
		"falling from right at the head":  {pageOf(9, true, nil, 8, 7), 9, true, 0},
		"falling from beyond the head":    {pageOf(9, true, nil, 9, 8), 70, true, 0},
		"falling, hidden between":         {pageOf(9, true, ranges{hiddenFrom(1, 2), hiddenFrom(5, 7)}, 9, 8, 4, 3), 0, true, 0},
		"falling, a hole":                 {pageOf(9, true, nil, 9, 7), 0, true, 8},
		"falling, a hole after hidden":    {pageOf(9, true, ranges{hiddenFrom(8, 9)}, 6), 0, true, 7},
		"falling, a hole before hidden":   {pageOf(9, true, ranges{hiddenFrom(5, 7)}, 9), 0, true, 8},
		"falling, a hole right at before": {pageOf(9, true, nil, 5), 7, true, 6},
	} {
		t.Run(name, func(t *testing.T) {
			check := CheckRising
			if c.falling {
				check = CheckFalling
			}
			err := check(gatewaytest.GroupID, c.page, ids.Seq(c.from))
			if c.missing == 0 {
				require.NoError(t, err)
				return
			}
			var hole *HoleError
			require.ErrorAs(t, err, &hole)
			require.Equal(t, ids.Seq(c.missing), hole.Seq)
			require.ErrorContains(t, err, gatewaytest.GroupID)
		})
	}
}

func TestTheEventAtThePositionIsTakenOff(t *testing.T) {
	log := gatewaytest.Branch(nil, 5, "x")
	page := &historyv1.ReadResponse{Events: log[2:]}
	require.False(t, TakePosition(page, 3, HashPrefix(log[2].GetHash())))
	require.Equal(t, log[3:], page.GetEvents())
	page = &historyv1.ReadResponse{Events: log[2:]}
	require.True(t, TakePosition(page, 3, HashPrefix(log[3].GetHash())))

	page = &historyv1.ReadResponse{Events: log[4:], Hidden: []*conversationv1.Range{hiddenFrom(2, 4)}}
	require.False(t, TakePosition(page, 2, 7), "what is hidden is not judged")
	require.Len(t, page.GetEvents(), 1)
	require.Equal(t, uint64(3), page.GetHidden()[0].GetFirst())
	page = &historyv1.ReadResponse{Hidden: []*conversationv1.Range{hiddenFrom(2, 3)}}
	require.False(t, TakePosition(page, 2, 7))
	require.Equal(t, uint64(3), page.GetHidden()[0].GetFirst(), "the rest may be a single event")
	page = &historyv1.ReadResponse{Hidden: []*conversationv1.Range{hiddenFrom(2, 2)}}
	require.False(t, TakePosition(page, 2, 7))
	require.Empty(t, page.GetHidden())
	page = &historyv1.ReadResponse{Events: log[1:], Hidden: []*conversationv1.Range{hiddenFrom(6, 7)}}
	require.False(t, TakePosition(page, 2, HashPrefix(log[1].GetHash())))
	require.Equal(t, uint64(6), page.GetHidden()[0].GetFirst(), "a stretch that follows stays")
}

// A page is cut before the event that would make it too large. Stretches that are hidden after the cut come with the next
// page.
func TestPagesAreTrimmed(t *testing.T) {
	type ranges = []*conversationv1.Range
	one := pageOf(9, false, nil, 7).GetEvents()[0].SizeVT() // all are of the same size
	for name, c := range map[string]struct {
		page   *historyv1.ReadResponse
		limit  int
		seqs   []uint64
		hidden ranges
		more   bool
	}{
		"it fits":                     {pageOf(7, false, ranges{hiddenFrom(6, 7)}, 3, 4, 5), 3 * one, []uint64{3, 4, 5}, ranges{hiddenFrom(6, 7)}, false},
		"one byte too many":           {pageOf(5, false, nil, 3, 4, 5), 3*one - 1, []uint64{3, 4}, nil, true},
		"the first event always fits": {pageOf(5, false, nil, 3, 4, 5), 0, []uint64{3}, nil, true},
		"only one":                    {pageOf(3, false, nil, 3), 0, []uint64{3}, nil, false},
		"nothing":                     {pageOf(3, false, ranges{hiddenFrom(1, 3)}), 0, nil, ranges{hiddenFrom(1, 3)}, false},
		"a hidden stretch before the cut is kept": {pageOf(9, true, ranges{hiddenFrom(1, 2), hiddenFrom(4, 5), hiddenFrom(7, 9)}, 3, 6), one, []uint64{3}, ranges{hiddenFrom(1, 2), hiddenFrom(4, 5)}, true},
		"falling":            {pageOf(9, false, ranges{hiddenFrom(1, 2), hiddenFrom(4, 5), hiddenFrom(7, 8)}, 9, 6, 3), 2 * one, []uint64{9, 6}, ranges{hiddenFrom(4, 5), hiddenFrom(7, 8)}, true},
		"falling, the first": {pageOf(9, false, ranges{hiddenFrom(7, 8)}, 9, 6), one, []uint64{9}, ranges{hiddenFrom(7, 8)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			Trim(c.page, c.limit)
			var seqs []uint64
			for _, event := range c.page.GetEvents() {
				seqs = append(seqs, event.GetSeq())
			}
			require.Equal(t, c.seqs, seqs)
			require.Equal(t, c.more, c.page.GetMore())
			require.Len(t, c.page.GetHidden(), len(c.hidden))
			for i, r := range c.page.GetHidden() {
				require.Equal(t, c.hidden[i].GetFirst(), r.GetFirst())
				require.Equal(t, c.hidden[i].GetLast(), r.GetLast())
			}
		})
	}
}

func TestHowFarAPageReaches(t *testing.T) {
	for name, c := range map[string]struct {
		page       *historyv1.ReadResponse
		stop, last uint64
	}{
		"nothing":         {pageOf(9, false, nil), 9, 0},
		"events":          {pageOf(9, true, nil, 3, 4), 9, 4},
		"hidden last":     {pageOf(9, true, []*conversationv1.Range{hiddenFrom(5, 7)}, 3, 4), 9, 7},
		"hidden before":   {pageOf(9, true, []*conversationv1.Range{hiddenFrom(1, 2)}, 3, 4), 9, 4},
		"no further than": {pageOf(9, true, nil, 3, 4), 3, 3},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, ids.Seq(c.last), Last(c.page, ids.Seq(c.stop))) })
	}
}

func TestHashesOfAPage(t *testing.T) {
	log := gatewaytest.Branch(nil, 3, "x")
	page := &historyv1.ReadResponse{Events: log[1:]}
	require.Equal(t, log[2].GetHash(), HashIn(page, 3))
	require.Equal(t, log[1].GetHash(), HashIn(page, 2))
	require.Nil(t, HashIn(page, 1))
	require.Equal(t, uint64(0x0102030405060708), HashPrefix([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}))
	require.Equal(t, uint64(0x0102030405060708), HashPrefix([]byte{1, 2, 3, 4, 5, 6, 7, 8}))
	require.Zero(t, HashPrefix([]byte{1, 2, 3, 4, 5, 6, 7}), "too short to be one")
	require.Zero(t, HashPrefix(nil))
}
