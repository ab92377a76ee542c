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

// What was told is forgotten together with everything else.
func TestForgetting(t *testing.T) {
	s := stretch.Resume(8)
	s.Done(stretch.Step{Do: stretch.Forget})
	require.Zero(t, s.Position())
	require.False(t, s.IsOpen())
	require.False(t, s.IsResting())
	require.Zero(t, s.After())
}
