package room

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// flushed counts the calls of Flush.
type flushed struct{ times int }

func (f *flushed) Queue([]byte) bool                                     { return false }
func (f *flushed) QueueEvents([]byte, []*flight.Delivery) (uint32, bool) { return 0, false }
func (f *flushed) Close(errcode.CloseCode, string) bool                  { return false }
func (f *flushed) Flush()                                                { f.times++ }

// When the queue of a shard is full, what is queued is written at once instead.
func TestFlushSoonDoesNotWaitForAFullShard(t *testing.T) {
	h := NewHub(t.Context(), Config{}) // no goroutine empties the queue
	replies := h.shardOf(groupID).replies
	for range shardCapacity {
		h.FlushSoon(groupID, &flushed{})
	}
	require.Len(t, replies, shardCapacity)
	late := &flushed{}
	h.FlushSoon(groupID, late)
	require.Equal(t, 1, late.times)
	<-replies
	waits := &flushed{}
	h.FlushSoon(groupID, waits)
	require.Zero(t, waits.times)
	require.Len(t, replies, shardCapacity)
}

// Every link is flushed once, however many there are.
func TestManyAreFlushedOnceEach(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 1000} {
		senders, dirty := make([]flushed, n), []Sender{}
		for i := range senders {
			dirty = append(dirty, &senders[i])
		}
		flushAll(dirty)
		for i := range senders {
			require.Equal(t, 1, senders[i].times, "%d of %d", i, n)
		}
	}
}

// A stretch that would fill a send queue by itself goes through the fillers, which wait for the client.
func TestALargeStretchGoesThroughFillers(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 1, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	small := branch(log, 3, "x")
	s.store.Put(small)
	s.live(r, small[1:]...)
	require.Equal(t, []uint64{2, 3}, ann.seqs(2))
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Filled), 0)
	large := branch(small, 20, strings.Repeat("x", 8000))
	s.store.Put(large)
	s.live(r, large[3:]...)
	require.Len(t, ann.seqs(17), 17)
	require.InDelta(t, 17, testutil.ToFloat64(s.metrics.Filled), 0)
}

// A room gives up its gap when all subscribers leave: no goroutine continues to read for it.
func TestARoomThatClosesGivesItsGapUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		log := branch(nil, 3, "x")
		s.store.Put(log)
		ann := s.client("ann", frame.Proto)
		ann.resume()
		r := s.hub.Room(groupID)
		s.store.Set(func() { s.store.Down = true })
		log = branch(log, 5, "x")
		s.live(r, log[4])
		synctest.Wait()
		require.True(t, r.catching)
		s.hub.Leave(ann.subscription())
		require.Nil(t, s.hub.Room(groupID))
		time.Sleep(time.Hour)
		synctest.Wait()
		require.False(t, r.catching)
		reads := 0
		s.store.Set(func() { reads = s.store.Reads })
		time.Sleep(time.Hour)
		synctest.Wait()
		s.store.Set(func() { require.Equal(t, reads, s.store.Reads) })
		require.Contains(t, s.logs.String(), "a gap could not be filled yet")
		require.Zero(t, s.hub.RecentBytes())
		s.hub.Wait()
	})
}

// A gap is filled as soon as the store is available again.
func TestAGapWaitsForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		log := branch(nil, 3, "x")
		s.store.Put(log)
		ann := s.client("ann", frame.Proto)
		ann.resume()
		s.store.Set(func() { s.store.Down = true })
		log = branch(log, 5, "x")
		s.live(s.hub.Room(groupID), log[4])
		time.Sleep(time.Minute)
		synctest.Wait()
		s.store.Set(func() { s.store.Down, s.store.Log = false, log })
		require.Equal(t, []uint64{4, 5}, ann.seqs(2))
		require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Gaps), 0)
	})
}

// A room whose last member left the conversation, rather than the gateway, is closed by the next sweep.
func TestASweepClosesRoomsThatAreEmpty(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	bob := s.client("bob", frame.Proto)
	bob.resume()
	r := s.hub.Room(groupID)
	s.hub.Sweep(time.Now())
	require.NotNil(t, s.hub.Room(groupID))
	log = append(log, removal(log))
	s.live(r, log[3])
	require.Equal(t, []uint64{4}, bob.seqs(1))
	require.NotNil(t, bob.next().GetDetached())
	s.hub.Sweep(time.Now())
	require.Nil(t, s.hub.Room(groupID))
	require.Equal(t, []ids.Conversation{groupID}, s.bus.unsubscribed)
	require.Zero(t, s.hub.RecentBytes())
	s.live(r, branch(log, 5, "late")[4]) // a live message that arrives late
	require.Zero(t, s.hub.RecentBytes(), "a closed room keeps nothing")
}

// No subscription is possible on a bus that is closed.
func TestABusThatIsClosedTakesNoRooms(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	s.bus.closed = true
	s.client("ann", frame.Proto).resume()
	require.Zero(t, s.hub.Count())
	require.Contains(t, s.logs.String(), "could not subscribe to a conversation")
}

// If heads cannot be compared, they are compared the next time.
func TestHeadsThatCannotBeCompared(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	s.client("ann", frame.Proto).resume()
	s.store.Set(func() { s.store.Down = true })
	s.hub.Compare(t.Context(), patience)
	require.Contains(t, s.logs.String(), "could not read the heads of conversations")
	require.Equal(t, []int{0}, uniq(s.hub.Waiting()))
}

func uniq(all []int) (different []int) {
	seen := map[int]bool{}
	for _, n := range all {
		if !seen[n] {
			different = append(different, n)
		}
		seen[n] = true
	}
	return different
}

// A missing event and an outage are reported differently.
func TestAHoleIsCounted(t *testing.T) {
	s := newStage(t)
	s.hub.ReadFailed(historyErr{}, "away")
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Holes), 0)
	s.hub.ReadFailed(&page.HoleError{ConversationID: groupID, Seq: 3}, "a hole")
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Holes), 0)
	require.Contains(t, s.logs.String(), "level=ERROR")
}

type historyErr struct{}

func (historyErr) Error() string { return "away" }

// A conversation that no longer exists has no head, and one without events has none, either.
func TestARoomOfNothing(t *testing.T) {
	s := newStage(t)
	ann := s.client("ann", frame.Proto)
	ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, JoinedSeq: 1}})
	r := s.hub.Room(groupID)
	shown := r.Show(10)
	require.True(t, shown.Ready)
	require.Zero(t, shown.Head+shown.RecentFrom)
	require.Len(t, shown.Subscriptions, 1)
	require.Equal(t, 1, r.Show(0).More)
	log := branch(nil, 1, "x")
	s.store.Put(log)
	s.live(r, log...)
	require.Equal(t, []uint64{1}, ann.seqs(1))
	s.live(r)
	var dirty []Sender
	r.takeMessage(&brokerv1.Live{Receipt: &conversationv1.Receipt{ConversationId: groupID, Version: 1}}, nil, &dirty)
	flushAll(dirty)
	require.NotNil(t, ann.next().GetReceipt())
}

// Events that were heard of before the room was open, and that the store does not have, are lost.
func TestARoomThatOpensBelowWhatItHeard(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 5, "x")
	s.store.Set(func() { s.store.Log, s.store.Down = log[:3], true })
	ann := s.client("ann", frame.Proto)
	ann.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 3, JoinedSeq: 1}})
	r := s.hub.Room(groupID)
	s.live(r, log[4])
	require.False(t, r.Show(1).Ready)
	require.Equal(t, ids.Seq(5), r.Show(1).Seen)
	s.store.Set(func() { s.store.Down = false })
	require.Eventually(t, func() bool { return r.Show(1).Ready && r.Show(1).Seen == 3 }, patience, time.Millisecond)
	ann.quiet()
}
