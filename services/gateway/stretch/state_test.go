package stretch_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// The store is read after the last event that was told, or from the earliest membership of a notice.
func TestWhereTheStoreIsRead(t *testing.T) {
	s := stretch.Resting(0)
	require.Zero(t, s.After())
	require.True(t, s.Notice(0))
	require.Zero(t, s.After(), "nothing is known of the membership")
	require.False(t, s.Notice(7))
	require.Equal(t, ids.Seq(6), s.After())
	require.False(t, s.Notice(0))
	require.Equal(t, ids.Seq(6), s.After(), "a notice without an event changes nothing")
	require.False(t, s.Notice(9))
	require.Equal(t, ids.Seq(6), s.After(), "the earliest counts")
	require.False(t, s.Notice(5))
	require.Equal(t, ids.Seq(4), s.After())
	told := stretch.Resume(8)
	require.Equal(t, ids.Seq(8), told.After())
}

// A notice of a membership that was told, or while a subscription or a fork decides, starts nothing.
func TestNoticesThatStartNothing(t *testing.T) {
	live, forked, told := stretch.Live(), stretch.Resting(3), stretch.Resting(5)
	require.True(t, live.IsOpen(), "who is subscribed is told the end of the membership")
	forked.Done(stretch.Step{Do: stretch.Diverge})
	require.True(t, forked.IsForked())
	for _, s := range []*stretch.State{&live, &forked} {
		require.False(t, s.Notice(9))
		require.False(t, s.Notice(0))
	}
	require.False(t, told.Notice(5))
	require.True(t, told.IsResting())
	require.True(t, told.Notice(0), "one without an event may be new")
}

// A notice of an earlier membership makes what was read useless, unless reading goes on after a position anyway.
func TestNoticesOfEarlierMembershipsReadAgain(t *testing.T) {
	again := stretch.Step{Do: stretch.Again}
	s := stretch.Resting(0)
	require.True(t, s.Notice(9))
	require.NotEqual(t, again, s.Next(stretch.View{}), "nothing was read")
	require.False(t, s.Notice(9))
	require.NotEqual(t, again, s.Next(stretch.View{}), "it is the same membership")
	require.False(t, s.Notice(7))
	require.Equal(t, again, s.Next(stretch.View{}))
	require.False(t, s.Notice(8))
	require.Equal(t, again, s.Next(stretch.View{}))
	s.Done(again)
	require.NotEqual(t, again, s.Next(stretch.View{}))
	told := stretch.Resting(3)
	require.True(t, told.Notice(9))
	require.Equal(t, stretch.Step{Do: stretch.Read}, told.Next(stretch.View{}), "reading goes on at the client's position")
	resumed := stretch.Resume(3)
	require.False(t, resumed.Notice(9))
	require.NotEqual(t, again, resumed.Next(stretch.View{}), "the position of the client is compared with the first page only")
}

// A lookup may find a membership that has ended, without any notice. The client is told of it first.
func TestAnEndedMembershipWithoutANotice(t *testing.T) {
	s := stretch.Resting(0)
	require.True(t, s.Notice(0))
	require.Equal(t, stretch.Step{Do: stretch.Begin, From: 5}, s.Next(stretch.View{Listed: true, Ended: 5, Present: 9}))
	s.Done(stretch.Step{Do: stretch.Begin, From: 5})
	require.Equal(t, ids.Seq(4), s.After())
	require.Equal(t, stretch.Step{Do: stretch.Read}, s.Next(stretch.View{Listed: true, Ended: 5, Present: 9}))
}

// What was told is forgotten together with everything else.
func TestForgetting(t *testing.T) {
	s := stretch.Resume(8)
	s.Done(stretch.Step{Do: stretch.Forget})
	require.Zero(t, s.Position())
	require.False(t, s.IsOpen())
	require.False(t, s.IsResting())
	require.Zero(t, s.After())
}
