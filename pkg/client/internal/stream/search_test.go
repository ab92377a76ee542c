package stream_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

// searched runs a search against a log. It returns the result and the number of events that it read.
func searched(s *stream.Stream, log *logtest.Log, committed uint64) (verdict stream.Verdict, common stream.Common, reads int) {
	search := s.Search()
	for verdict == stream.More {
		page := log.Page(max(search.Seq(), 1)-1, 1)
		verdict, common = search.Compare(page, committed)
		reads++
	}
	return verdict, common, reads
}

func TestALogThatOnlyGrewIsTheSame(t *testing.T) {
	log := logtest.New("c", 9)
	s := stream.New("c", 0)
	take(t, s, log, 1, 9)
	verdict, _, reads := searched(s, log, 9)
	require.Equal(t, stream.Same, verdict)
	require.Equal(t, 1, reads)
	log.Grow(5)
	verdict, _, _ = searched(s, log, 14)
	require.Equal(t, stream.Same, verdict)
	verdict, _, _ = searched(stream.New("c", 0), log, 0)
	require.Equal(t, stream.Same, verdict, "nothing contradicts an empty log")
	verdict, _, _ = searched(stream.Resume("c", 9, nil), log, 0)
	require.Equal(t, stream.Same, verdict, "a hash that is not known counts as the same")

	hiding := logtest.New("c", 9)
	hiding.Hide(9, 9)
	verdict, _, _ = searched(s, hiding, 0)
	require.Equal(t, stream.Same, verdict, "what the user may not see any more is no fork")
}

func TestACommittedCommandThatIsGoneIsAFork(t *testing.T) {
	log := logtest.New("c", 9)
	s := stream.New("c", 0)
	take(t, s, log, 1, 7)
	verdict, common, _ := searched(s, log, 10)
	require.Equal(t, stream.Forked, verdict)
	require.Equal(t, stream.Common{Seq: 7, Hash: log.Hash(7)}, common)
	log.Back(7)
	verdict, common, _ = searched(s, log, 10)
	require.Equal(t, stream.Forked, verdict)
	require.Equal(t, stream.Common{Seq: 7, Hash: log.Hash(7)}, common)
}

func TestAMarkThatWasComparedIsNotReadAgain(t *testing.T) {
	log := logtest.New("c", 9)
	s := stream.New("c", 0)
	take(t, s, log, 1, 9)
	log.Back(8)
	log.Grow(1)
	_, common, reads := searched(s, log, 0)
	require.EqualValues(t, 8, common.Seq)
	require.Equal(t, 2, reads)
	log.Back(8)
	_, common, reads = searched(s, log, 0)
	require.EqualValues(t, 8, common.Seq)
	require.Equal(t, 2, reads)

	// After a restart the hash of the newest event may be unknown, while hashes of earlier events are known.
	s.Skip(10)
	log.Back(7)
	log.Grow(1)
	_, common, _ = searched(s, log, 0)
	require.EqualValues(t, 7, common.Seq)
}

func TestNoEventInCommon(t *testing.T) {
	log := logtest.New("c", 40)
	s := stream.New("c", 0)
	s.SetJoined(11)
	s.SetJoined(12)
	s.Skip(10)
	take(t, s, log, 11, 40)
	log.Back(0)
	log.Grow(50)
	verdict, common, _ := searched(s, log, 0)
	require.Equal(t, stream.Forked, verdict)
	require.Equal(t, stream.Common{Seq: 10}, common, "it goes back to before the first event that the user may see")

	log.Back(0)
	verdict, common, _ = searched(s, log, 0)
	require.Equal(t, stream.Forked, verdict)
	require.EqualValues(t, 10, common.Seq)
}

// A server that has an event, but does not send it, has another log: this must not pass as the same one.
func TestAPageWithoutTheEventThatWasAskedForIsAFork(t *testing.T) {
	for name, s := range map[string]*stream.Stream{
		"its hash is known":     stream.Resume("c", 9, make([]byte, chain.Size)),
		"its hash is not known": stream.Resume("c", 9, nil),
	} {
		search := s.Search()
		verdict, common := search.Compare(&clientv1.Page{Head: 9}, 0)
		if verdict == stream.More {
			verdict, common = search.Compare(&clientv1.Page{Head: 9}, 0)
		}
		require.Equal(t, stream.Forked, verdict, name)
		require.Equal(t, stream.Common{}, common, name)
	}
}

// Wherever a log went back, the search finds the newest event that the client remembers below, or at, that place. Of the newest 32
// events it remembers all, of older ones at least every second at half their distance.
func TestTheSearchFindsTheLastRememberedEventInCommon(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		length := rapid.IntRange(1, 400).Draw(rt, "length")
		back := rapid.IntRange(0, length).Draw(rt, "back")
		grow := rapid.IntRange(0, 400).Draw(rt, "grow")
		log := logtest.New("c", length)
		s := stream.New("c", 0)
		take(t, s, log, 1, uint64(length))
		log.Back(uint64(back))
		log.Grow(grow)
		verdict, common, reads := searched(s, log, 0)
		if back == length {
			require.Equal(t, stream.Same, verdict)
			return
		}
		require.Equal(t, stream.Forked, verdict)
		require.LessOrEqual(t, common.Seq, uint64(back))
		if common.Seq > 0 {
			require.Equal(t, log.Hash(common.Seq), common.Hash)
		}
		if length-back < 32 {
			require.EqualValues(t, back, common.Seq)
		} else {
			require.LessOrEqual(t, back-int(common.Seq), length-back, "it goes back no more than twice as far as the log")
		}
		require.LessOrEqual(t, reads, 20)
	})
}
