package room

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// hold keeps a subscription behind, as a slow filler does; letGo lets the filler continue.
func (c *client) hold(s *Subscription) {
	r := s.room.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.behind = true
}

func (c *client) let(s *Subscription) {
	r := s.room.Load()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.behind = false
	r.putBehindLocked(s)
}

// addition returns the event that adds bob.
func addition(log []*conversationv1.Event) *conversationv1.Event {
	return next(log, "ann", &conversationv1.Body{Action: &conversationv1.Body_AddMembers{
		AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}},
	}})
}

// A user who leaves, comes back and leaves again while behind gets no event from the time between.
func TestLeavingTwiceWhileBehindShowsNothingBetween(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 2, "x")
	s.store.Put(log)
	r := s.room()
	bob := s.client("bob", frame.Proto)
	bob.resume()
	subscription := bob.subscription()
	bob.hold(subscription)
	log = append(log, removal(log))
	log = branch(log, 4, "secret")
	log = append(log, addition(log))
	log = append(log, removal(log))
	s.store.Put(log)
	s.live(r, log[2:]...)
	var dirty []Sender
	r.takeMessage(&brokerv1.Live{Receipt: &conversationv1.Receipt{ConversationId: groupID, Version: 1}}, nil, &dirty)
	require.Empty(t, dirty, "no receipts are sent to them any more, either")
	bob.quiet()
	bob.let(subscription)
	require.Equal(t, []uint64{3}, bob.seqs(1))
	require.Equal(t, uint64(3), bob.next().GetDetached().GetLast())
	bob.quiet()
}

// Events that a filler is still sending are not sent again, and their client is not closed, however long that takes.
func TestWhatIsBehindIsNotSentAgain(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(r, log[3])
	require.Equal(t, []uint64{4}, ann.seqs(1))
	subscription := ann.subscription()
	ann.hold(subscription)
	for i := range 10 {
		s.hub.Sweep(time.Now().Add(time.Duration(i+1) * time.Hour))
	}
	ann.quiet()
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Retries), 0)
	ann.let(subscription)
	s.sweep(time.Now().Add(11 * time.Hour))
	require.Equal(t, []uint64{4}, ann.seqs(1))
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Retries), 0)
}

// An acknowledgement resets the number of tries: a client that is slow and alive is not closed.
func TestAnAcknowledgementBeginsTheTriesAnew(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	now := time.Now()
	for seq := 4; seq < 4+3*s.hub.cfg.AckTries; seq++ {
		log = branch(log, seq, "x")
		s.store.Put(log)
		s.live(r, log[seq-1])
		require.Equal(t, []uint64{uint64(seq)}, ann.seqs(1))
		now = now.Add(time.Hour)
		s.sweep(now)
		require.Equal(t, []uint64{uint64(seq)}, ann.seqs(1))
		require.Equal(t, uint32(1), ann.subscription().Standing().GetRetries())
		require.True(t, ann.subscription().Acknowledge(ids.Seq(seq), 0, now))
		require.Zero(t, ann.subscription().Standing().GetRetries())
		require.Nil(t, ann.subscription().Unfinished())
	}
	require.Empty(t, ann.closes)
}

// A subscription is not changed after it was given up, or after it ended while its filler had it.
func TestAFillerLeavesAloneWhatIsGone(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	subscription := ann.subscription()
	r := subscription.room.Load()
	r.mu.Lock()
	subscription.sent = 1
	r.forkLocked(subscription)
	r.mu.Unlock()
	ann.requireForked(3, 3)
	more, err := subscription.FillOnce()
	require.NoError(t, err)
	require.False(t, more)
	ann.quiet()

	bob := s.client("bob", frame.Proto)
	bob.resume()
	subscription = bob.subscription()
	r.mu.Lock()
	r.removeLocked(subscription)
	r.removeLocked(subscription) // a second call has no effect
	subscription.until = 3
	r.mu.Unlock()
	more, err = subscription.FillOnce()
	require.NoError(t, err)
	require.False(t, more)
	bob.quiet()
}

// Before a subscription is in a room it reports no position and accepts every one, because nothing can be checked yet.
func TestASubscriptionThatIsNotInARoomYet(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	ann := s.client("ann", frame.Proto)
	subscription := ann.Subscribe(nil, 0, nil)
	require.True(t, subscription.Acknowledge(99, 99, time.Now()))
	require.Nil(t, subscription.Standing())
	require.Nil(t, subscription.Unfinished())
	require.Zero(t, subscription.Beat())
	s.hub.Leave(subscription)
}

// An event that erases content removes the events before it from memory, also in the middle of a message.
func TestAnErasureInTheMiddleKeepsWhatFollows(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	log = branch(log, 5, "secret")
	log = append(log, next(log, "cem", &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 5}}}))
	log = branch(log, 8, "x")
	s.store.Put(log)
	s.live(r, log[3:]...)
	ann.seqs(5)
	r.mu.Lock()
	defer r.mu.Unlock()
	require.Equal(t, ids.Seq(6), r.erasedAt)
	require.Equal(t, ids.Seq(6), r.firstRecentLocked())
	require.Len(t, r.recent, 3)
	total := 0
	for _, e := range r.recent {
		total += e.weight()
	}
	require.Equal(t, total, r.bytes)
}

// The end of an earlier membership, which the room receives late, does not end the current one.
func TestAnEarlierRemovalEndsNothing(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 2, "x")
	s.store.Put(log)
	r := s.room()
	log = append(log, removal(log))
	log = append(log, addition(log))
	bob := s.client("bob", frame.Proto)
	s.store.Put(log)
	bob.subscribe([]*historyv1.Summary{{ConversationId: groupID, Head: 4, JoinedSeq: 4}})
	s.live(r, log[2:]...)
	log = branch(log, 5, "x")
	s.store.Put(log)
	s.live(r, log[4])
	require.Equal(t, []uint64{5}, bob.seqs(1))
}

// Events that are already known are counted, and are not a gap.
func TestARepeatIsNoGap(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	log = branch(log, 5, "x")
	s.store.Put(log)
	s.live(r, log[3])
	s.live(r, log[3])
	s.live(r, log[2:]...) // two of three events are known
	require.Equal(t, []uint64{4, 5}, ann.seqs(2))
	require.InDelta(t, 3, testutil.ToFloat64(s.metrics.Repeats), 0)
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Gaps), 0)
}

// A heartbeat does not report a head while its events are being sent: the client would request them.
func TestAHeartbeatWaitsForWhatIsBehind(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	subscription := ann.subscription()
	ann.hold(subscription)
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(r, log[3])
	require.Zero(t, subscription.Beat().Head)
	ann.let(subscription)
	require.Equal(t, []uint64{4}, ann.seqs(1))
	require.Eventually(t, func() bool { return subscription.Beat().Head == 4 }, patience, time.Millisecond)
	require.Zero(t, subscription.Beat().Head, "once")
}

// interrupted is the store, with a function that runs during the next read.
type interrupted struct {
	*gatewaytest.Store

	during func()
}

func (i *interrupted) Read(ctx context.Context, r *historyv1.ReadRequest, o ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	if during := i.during; during != nil {
		i.during = nil
		during()
	}
	return i.Store.Read(ctx, r, o...)
}

// A subscription that is put back while its events are being read is not given those: the ones before them would be
// missing.
func TestAPageThatIsLateIsNotQueued(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 5, "x")
	s.store.Put(log)
	r, ann := s.room(), s.client("ann", frame.Proto)
	s.hub.cfg.Log = &interrupted{Store: s.store, during: func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.subscriptions[0].sent = 0
	}}
	ann.resume(position(log[1]))
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, ann.seqs(5))
	ann.quiet()
}

// A room that was closed cannot remove the room that replaced it.
func TestAClosedRoomLeavesTheNextOneAlone(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	ann, bob := s.client("ann", frame.Proto), s.client("bob", frame.Proto)
	ann.resume()
	first := s.hub.Room(groupID)
	s.hub.Leave(ann.subscription())
	bob.resume()
	require.NotSame(t, first, s.hub.Room(groupID))
	s.hub.closeIfEmpty(first)
	s.hub.Leave(ann.subscription())
	require.Equal(t, 1, s.hub.Count())
	require.Len(t, s.bus.unsubscribed, 1)
}

// However much memory there is, a room keeps a bounded number of events.
func TestTheNumberOfRecentEventsIsBounded(t *testing.T) {
	s := newStage(t)
	s.hub.cfg.RecentBytes = 1 << 30
	log := branch(nil, 3, "x")
	s.store.Put(log)
	r := s.room()
	log = branch(log, maxRecentEvents+20, "x")
	s.store.Put(log)
	s.live(r, log[3:]...)
	shown := r.Show(0)
	require.Equal(t, maxRecentEvents, shown.Recent)
	require.Equal(t, ids.Seq(21), shown.RecentFrom)
	require.Equal(t, int64(shown.RecentBytes), s.hub.RecentBytes())
}

// A subscription that is added after the room took the end of its membership, and is behind when a later membership of the user ends,
// is served up to the end of its own.
func TestALaterRemovalDoesNotProlongAMembership(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 2, "x")
	s.store.Put(log)
	r := s.room()
	ann := s.client("ann", frame.Proto)
	ann.resume()
	list, err := s.store.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: "bob"})
	require.NoError(t, err)
	log = append(log, removal(log))
	s.store.Put(log)
	s.live(r, log[2])
	bob := s.client("bob", frame.Proto)
	subscription := bob.Subscribe(list.GetConversations()[0], 1, nil)
	bob.subscriptions[groupID] = subscription
	r.mu.Lock()
	r.addLocked(subscription)
	subscription.behind = true
	r.mu.Unlock()
	log = append(log, addition(log))
	log = append(log, removal(log))
	s.store.Put(log)
	s.live(r, log[3:]...)
	bob.let(subscription)
	require.Equal(t, []uint64{2, 3}, bob.seqs(2))
	require.Equal(t, uint64(3), bob.next().GetDetached().GetLast())
	bob.quiet()
}
