package stretch_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// noticed returns the state of a client that was told everything up to a seq, after notices.
func noticed(told ids.Seq, seqs ...ids.Seq) stretch.State {
	s := stretch.Resting(told)
	for _, seq := range seqs {
		s.Notice(seq)
	}
	return s
}

func page(member bool, head ids.Seq, stretches ...stretch.Stretch) stretch.View {
	return stretch.View{Page: &stretch.Page{Known: true, Member: member, Head: head, Stretches: stretches}}
}

func listed(v stretch.View, present ids.Seq) stretch.View {
	v.Listed, v.Present = true, present
	return v
}

// What is told in cases that do not follow from memberships alone: unknown conversations, positions of 0, logs that went back,
// memberships that are older than the session, answers that contradict each other.
func TestSteps(t *testing.T) {
	type steps = []stretch.Step
	ended := func(from, last ids.Seq) stretch.Stretch { return stretch.Stretch{From: from, Last: last, Ended: true} }
	old := func(from, last ids.Seq, ended bool) stretch.Stretch {
		return stretch.Stretch{From: from, Last: last, Ended: ended, Old: true}
	}
	diverged := page(false, 9)
	diverged.Page.Diverged = true
	for name, c := range map[string]struct {
		state stretch.State
		view  stretch.View
		want  steps
	}{
		"a conversation that does not exist": {
			stretch.Resume(3), stretch.View{Page: &stretch.Page{}}, steps{{Do: stretch.Detach}, {Do: stretch.Rest}},
		},
		"a notice of a conversation that does not exist": {noticed(0, 4), stretch.View{Page: &stretch.Page{}}, steps{{Do: stretch.Rest}}},
		"a position on another branch":                   {stretch.Resume(12), diverged, steps{{Do: stretch.Diverge}}},
		"a log that ends below what was told":            {noticed(12, 13), diverged, steps{{Do: stretch.Forget}}},
		"a position of 0, before the membership": {
			stretch.Resume(0), page(false, 6, ended(4, 6)),
			steps{{stretch.Hide, 1, 3}, {Do: stretch.Tell, Last: 6}, {Do: stretch.Detach, Last: 6}, {Do: stretch.Rest}},
		},
		"a position of 0, at the beginning": {
			stretch.Resume(0), page(false, 6, ended(1, 6)), steps{{Do: stretch.Tell, Last: 6}, {Do: stretch.Detach, Last: 6}, {Do: stretch.Rest}},
		},
		"a position of 0, before anything was read": {stretch.Resume(0), listed(stretch.View{}, 4), steps{{Do: stretch.Read}}},
		"a notice of the present membership":        {noticed(0, 4), listed(stretch.View{}, 4), steps{{stretch.Subscribe, 4, 3}}},
		"a present membership, as the list says": {
			noticed(5, 7), listed(page(true, 9, stretch.Stretch{From: 7, Last: 9}), 7), steps{{stretch.Subscribe, 7, 6}},
		},
		"a membership that lasts in the page, and is not in the list": {
			noticed(5, 7), listed(page(true, 9, stretch.Stretch{From: 7, Last: 9}), 0), steps{{stretch.Attach, 7, 9}, {Do: stretch.Tell, Last: 9}},
		},
		"a membership that lasts in the page, and a later one in the list": {
			noticed(5, 7), listed(page(true, 9, stretch.Stretch{From: 7, Last: 9}), 12), steps{{stretch.Attach, 7, 9}, {Do: stretch.Tell, Last: 9}},
		},
		"a membership that goes on after its end was told": {
			noticed(5, 0), page(false, 9, stretch.Stretch{Last: 9, Ended: true}),
			steps{{stretch.Attach, 6, 9}, {Do: stretch.Tell, Last: 9}, {Do: stretch.Detach, Last: 9}, {Do: stretch.Rest}},
		},
		"a membership that ended since the page was read": {
			stretch.Resume(12), listed(page(true, 12), 0), steps{{Do: stretch.Again}, {Do: stretch.Read}},
		},
		"a present membership that began with the event at the position": {
			stretch.Resume(12), listed(page(true, 12), 12), steps{{stretch.Subscribe, 12, 12}},
		},
		"a notice while the store was read": {
			noticed(0, 9, 9), page(false, 5), steps{{Do: stretch.Again}, {Do: stretch.LookUp}},
		},
		"a position at the end":                           {stretch.Resume(6), page(false, 6), steps{{Do: stretch.Detach, Last: 6}, {Do: stretch.Rest}}},
		"a notice without a seq":                          {noticed(0, 0), listed(stretch.View{}, 4), steps{{stretch.Subscribe, 4, 3}}},
		"a notice of a membership after the present one":  {noticed(0, 9), listed(stretch.View{}, 4), steps{{stretch.Subscribe, 4, 3}}},
		"a notice of a membership before the present one": {noticed(0, 3), listed(stretch.View{}, 4), steps{{Do: stretch.Read}}},
		"no membership":                                   {noticed(0, 0), listed(stretch.View{}, 0), steps{{Do: stretch.Rest}}},
		"a notice beyond the log":                         {noticed(0, 9), page(false, 5), steps{{Do: stretch.Rest}}},
		"a membership in many pages":                      {noticed(0, 4), page(false, 90, stretch.Stretch{From: 4, Last: 10}), steps{{stretch.Attach, 4, 10}, {Do: stretch.Tell, Last: 10}, {Do: stretch.Again}, {Do: stretch.Read}}},
		"an ended membership needs no list": {
			noticed(0, 4), page(true, 90, ended(4, 10), stretch.Stretch{From: 12, Last: 12}),
			steps{{stretch.Attach, 4, 10}, {Do: stretch.Tell, Last: 10}, {Do: stretch.Detach, Last: 10}, {Do: stretch.LookUp}},
		},
		"an older membership that was told already": {noticed(12, 0), listed(page(true, 12), 4), steps{{Do: stretch.Rest}}},
		"a present membership that goes on at the position": {
			stretch.Resume(12), listed(page(true, 12), 4), steps{{stretch.Subscribe, 4, 12}},
		},
		"a present membership that is newer than the page": {
			stretch.Resume(12), listed(page(true, 12), 15), steps{{Do: stretch.Again}, {Do: stretch.Read}},
		},
		"memberships older than the session, then others": {
			noticed(0, 2), page(false, 9, old(2, 3, true), old(5, 6, true), ended(7, 7), old(8, 9, true)),
			steps{
				{Do: stretch.Skip, Last: 3},
				{Do: stretch.Skip, Last: 6},
				{stretch.Attach, 7, 7},
				{Do: stretch.Tell, Last: 7},
				{Do: stretch.Detach, Last: 7},
				{stretch.Attach, 8, 9},
				{Do: stretch.Tell, Last: 9},
				{Do: stretch.Detach, Last: 9},
				{Do: stretch.Rest},
			},
		},
		"the later part of a membership that is older than the session": {
			noticed(0, 2), page(false, 9, old(2, 3, false), stretch.Stretch{Last: 9, Ended: true}), steps{{Do: stretch.Skip, Last: 3}, {Do: stretch.Skip, Last: 9}, {Do: stretch.Rest}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for i, want := range c.want {
				step := c.state.Next(c.view)
				require.Equal(t, want, step, "step %d", i)
				if c.state.Done(step); step.Do == stretch.Again {
					c.view = stretch.View{}
				}
			}
		})
	}
}

// A notice starts work only if it names a membership that was not told. Of several the earliest counts.
func TestNotices(t *testing.T) {
	s := stretch.Resting(5)
	require.False(t, s.Notice(4))
	require.False(t, s.Notice(5))
	require.True(t, s.IsResting())
	require.True(t, s.Notice(6))
	require.False(t, s.Notice(7), "work is under way")
	require.Equal(t, ids.Seq(5), s.After(), "the position counts, not the notice")

	s = noticed(0, 9, 4, 7)
	require.Equal(t, ids.Seq(3), s.After())
	s.Done(stretch.Step{Do: stretch.Rest})
	s.Notice(20)
	require.Equal(t, ids.Seq(19), s.After(), "a notice that named nothing is forgotten")

	s = stretch.Live()
	require.False(t, s.Notice(9))
	s.Fork()
	require.False(t, s.Notice(9))
	require.True(t, s.IsForked())
}

// A stretch begins where a membership begins, and after events that the user may not see.
func TestStretchesOfAPage(t *testing.T) {
	require.Equal(t, []stretch.Stretch{
		{Last: 5, Ended: true}, {From: 6, Last: 6, Ended: true, Old: true}, {From: 9, Last: 10}, {From: 13, Last: 13}, {From: 14, Last: 14},
	}, stretch.Of([]stretch.Event{
		{Seq: 4},
		{Seq: 5, Ends: true},
		{Seq: 6, Begins: true, Ends: true, Old: true},
		{Seq: 9, Begins: true},
		{Seq: 10},
		{Seq: 13}, // after a gap, although nothing says so
		{Seq: 14, Begins: true},
	}, 3))
	require.Equal(t, []stretch.Stretch{{From: 5, Last: 5}}, stretch.Of([]stretch.Event{{Seq: 5}}, 3), "the position was outside")
	require.Empty(t, stretch.Of(nil, 3))
}

// do carries out the next step, which must be this one.
func do(t *testing.T, s *stretch.State, v stretch.View, want stretch.Step) {
	t.Helper()
	require.Equal(t, want, s.Next(v))
	s.Done(want)
}

// The first membership that is told is the earliest one: a notice that comes while a later one was read, and a membership that
// ended and of which no notice came, are told first.
func TestAnEarlierMembershipIsToldFirst(t *testing.T) {
	ended := func(from, last ids.Seq) stretch.Stretch { return stretch.Stretch{From: from, Last: last, Ended: true} }
	s := noticed(0, 8)
	read := page(false, 9, ended(8, 9))
	require.False(t, s.Notice(3))
	do(t, &s, read, stretch.Step{Do: stretch.Again})
	require.Equal(t, ids.Seq(2), s.After())
	do(t, &s, page(false, 9, ended(3, 4), ended(8, 9)), stretch.Step{Do: stretch.Attach, From: 3, Last: 4})

	s = noticed(0, 8)
	found := listed(stretch.View{}, 8)
	found.Ended = 3
	do(t, &s, found, stretch.Step{Do: stretch.Begin, From: 3})
	do(t, &s, found, stretch.Step{Do: stretch.Read})
	require.Equal(t, ids.Seq(2), s.After())

	s = noticed(0, 8)
	found.Ended = 8 // it ended while it was looked up
	do(t, &s, found, stretch.Step{Do: stretch.Subscribe, From: 8, Last: 7})
}

// A membership whose event is older than the session is told if a notice says that it was committed later, also if it was skipped
// before the notice came.
func TestAMembershipThatWaitedInTheStreamIsTold(t *testing.T) {
	old := func(from, last ids.Seq) stretch.Stretch {
		return stretch.Stretch{From: from, Last: last, Ended: true, Old: true}
	}
	skip := func(last ids.Seq) stretch.Step { return stretch.Step{Do: stretch.Skip, Last: last} }
	attach := stretch.Step{Do: stretch.Attach, From: 5, Last: 6}
	view := page(false, 6, old(2, 3), old(5, 6))

	s := noticed(0, 2)
	require.False(t, s.NoticeNow(5))
	do(t, &s, view, skip(3))
	do(t, &s, view, attach)

	for _, seqs := range [][]ids.Seq{{5, 0}, {5, 5}, {5, 8}, {8, 5}} {
		s = noticed(0, 2)
		for _, seq := range seqs {
			require.False(t, s.NoticeNow(seq), "the earliest counts")
		}
		do(t, &s, view, skip(3))
		do(t, &s, view, attach)
	}

	s = noticed(0, 2)
	do(t, &s, view, skip(3))
	do(t, &s, view, skip(6))
	require.False(t, s.NoticeNow(5))
	do(t, &s, view, stretch.Step{Do: stretch.Again})
	do(t, &s, view, skip(3))
	do(t, &s, view, attach)

	s = noticed(0, 2)
	do(t, &s, view, skip(3))
	do(t, &s, view, skip(6))
	do(t, &s, view, stretch.Step{Do: stretch.Rest})
	require.True(t, s.NoticeNow(5))
	require.Equal(t, ids.Seq(4), s.After())
	do(t, &s, page(false, 6, old(5, 6)), attach)
	require.False(t, s.NoticeNow(5), "it is being told")
}
