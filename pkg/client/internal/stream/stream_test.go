package stream_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client/internal/logtest"
	"github.com/runnelhq/runnel/pkg/client/internal/stream"
	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

var checker = stream.NewChecker(frame.Proto, false)

func take(t *testing.T, s *stream.Stream, log *logtest.Log, first, last uint64) {
	t.Helper()
	for seq := first; seq <= last; seq++ {
		content, err := s.Take(checker, log.Event(seq))
		require.NoError(t, err)
		require.Equal(t, chain.Verified, content)
	}
}

func arrival(log *logtest.Log, seq uint64) stream.Arrival {
	return stream.Arrival{Event: log.Event(seq)}
}

func TestOnlyTheNextEventThatVerifiesIsTaken(t *testing.T) {
	log := logtest.New("c", 5)
	other := logtest.New("d", 5)
	s := stream.New("c", 0)
	take(t, s, log, 1, 2)
	for name, event := range map[string]*clientv1.Event{
		"again":                      log.Event(2),
		"one too far":                log.Event(4),
		"of another conversation":    other.Event(3),
		"of another log":             log.Tampered(3),
		"the same place, other hash": log.Tampered(2),
	} {
		_, err := s.Take(checker, event)
		broken, ok := errors.AsType[*chain.Broken](err)
		require.True(t, ok, name)
		require.Equal(t, ids.Seq(event.GetSeq()), broken.Seq, name)
		require.EqualValues(t, 2, s.Last(), name)
	}
	take(t, s, log, 3, 5)
	require.EqualValues(t, 5, s.Last())
	require.Equal(t, log.Hash(5)[:chain.PrefixSize], s.LastHash())
}

func TestAStreamResumesFromAPosition(t *testing.T) {
	log := logtest.New("c", 4)
	s := stream.Resume("c", 2, log.Hash(2))
	require.Equal(t, log.Hash(2)[:chain.PrefixSize], s.LastHash())
	take(t, s, log, 3, 4)

	// If the hash of the position is known, the next event must contain it.
	log.Back(2)
	log.Grow(1)
	other := logtest.New("c", 4)
	other.Back(1)
	other.Grow(2)
	s = stream.Resume("c", 2, log.Hash(2))
	_, err := s.Take(checker, other.Event(3))
	require.Error(t, err)

	s = stream.Resume("c", 2, nil)
	require.Nil(t, s.LastHash())
	take(t, s, log, 3, 3)
	require.False(t, s.Contradicts(log.Event(2)), "the hash before the first event is remembered")
	require.True(t, s.Contradicts(log.Tampered(2)))
	require.Nil(t, stream.Resume("c", 2, []byte("short")).LastHash())
}

func TestAHiddenStretchIsSkipped(t *testing.T) {
	log := logtest.New("c", 5)
	s := stream.New("c", 0)
	take(t, s, log, 1, 2)
	hidden := s.Skip(4)
	require.EqualValues(t, 3, hidden.GetFirst())
	require.EqualValues(t, 4, hidden.GetLast())
	require.Equal(t, "c", hidden.GetConversationId())
	require.Nil(t, s.LastHash())
	take(t, s, log, 5, 5)
	require.False(t, s.Contradicts(log.Tampered(4)), "a hidden event is not remembered: it cannot be read to compare it")
	require.True(t, s.Contradicts(log.Tampered(5)))
}

func TestWhatIsMissingIsKnown(t *testing.T) {
	log := logtest.New("c", 5)
	s := stream.New("c", 0)
	require.False(t, s.Behind())
	s.Announce(3)
	s.Announce(2)
	require.EqualValues(t, 3, s.Head())
	require.True(t, s.Behind())
	take(t, s, log, 1, 3)
	require.False(t, s.Behind())
	s.Announce(9)
	s.Hold(arrival(log, 5))
	s.GiveUp()
	require.False(t, s.Behind())
	take(t, s, log, 4, 4)
	_, held := s.NextHeld()
	require.False(t, held)
}

func TestHeldEventsFollowAGap(t *testing.T) {
	log := logtest.New("c", 500)
	s := stream.New("c", 0)
	s.Hold(arrival(log, 3))
	s.Hold(arrival(log, 5)) // not contiguous with the held events
	s.Hold(arrival(log, 4))
	_, held := s.NextHeld()
	require.False(t, held, "there is a gap before them")
	take(t, s, log, 1, 2)
	for seq := uint64(3); seq <= 4; seq++ {
		next, held := s.NextHeld()
		require.True(t, held)
		require.Equal(t, seq, next.Event.GetSeq())
		_, twice := s.NextHeld()
		require.False(t, twice, "it was removed")
		take(t, s, log, seq, seq)
	}
	_, held = s.NextHeld()
	require.False(t, held)

	// Held events that were read meanwhile are skipped.
	s.Hold(arrival(log, 6))
	s.Hold(arrival(log, 7))
	take(t, s, log, 5, 6)
	next, held := s.NextHeld()
	require.True(t, held)
	require.EqualValues(t, 7, next.Event.GetSeq())
	take(t, s, log, 7, 7)

	s.Hold(arrival(log, 9))
	s.DropHeld()
	take(t, s, log, 8, 8)
	_, held = s.NextHeld()
	require.False(t, held)

	// At most 256 events are held.
	for seq := uint64(100); seq <= 500; seq++ {
		s.Hold(arrival(log, seq))
	}
	take(t, s, log, 9, 99)
	count := 0
	for next, held := s.NextHeld(); held; next, held = s.NextHeld() {
		take(t, s, log, next.Event.GetSeq(), next.Event.GetSeq())
		count++
	}
	require.Equal(t, 256, count)
}

func TestAnEventThatIsReadHasTheTraceOfItsHeldCopy(t *testing.T) {
	log := logtest.New("c", 5)
	s := stream.New("c", 0)
	origin := &tracing.Origin{}
	other := stream.New("c", 0)
	other.Hold(stream.Arrival{Event: log.Event(4), Origin: origin})
	require.Nil(t, other.AsRead(log.Event(3)).Origin, "a later event is held")
	s.Hold(arrival(log, 3))
	s.Hold(stream.Arrival{Event: log.Event(4), Origin: origin})
	require.Nil(t, s.AsRead(log.Event(2)).Origin, "nothing is held of it")
	require.Nil(t, s.AsRead(log.Event(3)).Origin)
	require.Same(t, origin, s.AsRead(log.Event(4)).Origin)
	require.Nil(t, s.AsRead(log.Event(5)).Origin)
}

// merge takes all events of a page, and returns the taken events as text.
func merge(s *stream.Stream, page *clientv1.Page, limit int) (took []string, seq uint64, err error) {
	seq, err = s.Merge(page, func(came stream.Arrival) error {
		if len(took) == limit {
			return errors.New("enough")
		}
		if _, err := s.Take(checker, came.Event); err != nil {
			return err
		}
		took = append(took, strconv.FormatUint(came.Event.GetSeq(), 10))
		return nil
	}, func(to uint64) {
		hidden := s.Skip(to)
		took = append(took, fmt.Sprintf("(%d-%d)", hidden.GetFirst(), hidden.GetLast()))
	})
	return took, seq, err
}

func TestMergingAPage(t *testing.T) {
	log := logtest.New("c", 9)
	log.Hide(1, 2)
	log.Hide(5, 6)
	log.Hide(9, 9)
	s := stream.New("c", 0)
	took, seq, err := merge(s, log.Page(0, 100), 100)
	require.NoError(t, err)
	require.EqualValues(t, 9, seq)
	require.Equal(t, []string{"(1-2)", "3", "4", "(5-6)", "7", "8", "(9-9)"}, took)

	// Events that were pushed meanwhile are skipped; a hidden stretch that begins earlier is cut.
	s = stream.New("c", 5)
	took, _, err = merge(s, log.Page(2, 100), 100)
	require.NoError(t, err)
	require.Equal(t, []string{"(6-6)", "7", "8", "(9-9)"}, took)

	took, _, err = merge(stream.New("c", 3), log.Page(2, 100), 100)
	require.NoError(t, err)
	require.Equal(t, []string{"4", "(5-6)", "7", "8", "(9-9)"}, took)

	// Merge stops at an event that cannot be taken.
	s = stream.New("c", 2)
	took, seq, err = merge(s, log.Page(2, 100), 1)
	require.EqualError(t, err, "enough")
	require.Equal(t, []string{"3"}, took)
	require.EqualValues(t, 4, seq)
	page := log.Page(2, 100)
	page.Hidden = nil
	took, seq, err = merge(stream.New("c", 2), page, 100)
	require.ErrorContains(t, err, "hole")
	require.Equal(t, []string{"3", "4"}, took)
	require.EqualValues(t, 7, seq)
}

func TestRewinding(t *testing.T) {
	log := logtest.New("c", 9)
	s := stream.New("c", 0)
	take(t, s, log, 1, 9)
	s.Announce(20)
	log.Back(5)
	log.Grow(5)
	s.Rewind(5, log.Hash(5))
	require.Equal(t, 1, s.Branch())
	require.EqualValues(t, 5, s.Last())
	require.False(t, s.Behind())
	require.False(t, s.Contradicts(log.Event(6)), "what lay above is forgotten")
	other := logtest.New("c", 4)
	other.Back(3)
	other.Grow(5)
	_, err := s.Take(checker, other.Event(6))
	require.Error(t, err, "it does not continue the event that was gone back to")
	take(t, s, log, 6, 10)

	s.Rewind(0, nil)
	require.Equal(t, 2, s.Branch())
	require.Nil(t, s.LastHash())
	take(t, s, logtest.New("c", 3), 1, 3)
}

func TestCheckingCanBeSwitchedOff(t *testing.T) {
	log := logtest.New("c", 3)
	s, off := stream.New("c", 0), stream.NewChecker(frame.Proto, true)
	tampered := log.Tampered(1)
	content, err := s.Take(off, tampered)
	require.NoError(t, err)
	require.Equal(t, chain.NotChecked, content)
	erased := log.Event(2)
	erased.Body, erased.Salt = nil, nil
	content, err = s.Take(off, erased)
	require.NoError(t, err)
	require.Equal(t, chain.Erased, content)
}

func TestErasedContentIsToldAndTaken(t *testing.T) {
	log := logtest.New("c", 1)
	log.Erase(1)
	event := log.Event(1)
	content, err := stream.New("c", 0).Take(checker, event)
	require.NoError(t, err)
	require.Equal(t, chain.Erased, content)
	require.Nil(t, event.GetBody())
}

func TestCovered(t *testing.T) {
	hidden := []*conversationv1.Range{{First: 7, Last: 8}, {First: 3, Last: 6}, {First: 10, Last: 12}}
	require.True(t, stream.Covered(hidden, 3, 9))
	require.True(t, stream.Covered(hidden, 5, 5))
	require.False(t, stream.Covered(hidden, 2, 9))
	require.False(t, stream.Covered(hidden, 3, 10))
	require.False(t, stream.Covered(nil, 3, 4))
	require.EqualValues(t, 7, hidden[0].GetFirst(), "the page is not changed")
}
