package room

import (
	"testing"

	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// stall lets each call of the bus wait until proceed is called. called receives a value for each.
func (b *fakeBus) stall() (called chan struct{}, proceed func()) {
	called, released := make(chan struct{}, 10), make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slow = func() {
		called <- struct{}{}
		<-released
	}
	return called, func() {
		b.mu.Lock()
		b.slow = nil
		b.mu.Unlock()
		close(released)
	}
}

// While the bus does not answer, only those who need its answer wait: other rooms are served, and clients enter and leave.
func TestASlowBusDelaysNobodyElse(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.client("ann", frame.Proto)
	ann.resume()
	r := s.hub.Room(groupID)
	_, other := s.other()
	called, proceed := s.bus.stall()
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		other()
	}()
	<-called // its room is being subscribed to
	require.Equal(t, 2, s.hub.Count())
	require.NotNil(t, s.hub.Room(groupID))
	log = branch(log, 4, "x")
	s.store.Put(log)
	s.live(r, log[3])
	require.Equal(t, []uint64{4}, ann.seqs(1))
	bob := s.client("bob", frame.Proto)
	bob.resume()
	s.hub.Leave(bob.subscription())
	proceed()
	<-entered
	require.Contains(t, s.subscribed(), otherID)

	// The same holds for the end of a subscription.
	called, proceed = s.bus.stall()
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.hub.Leave(ann.subscription())
	}()
	<-called
	require.Equal(t, 1, s.hub.Count())
	require.Nil(t, s.hub.Room(groupID))
	proceed()
	<-left
}

// A room that is closed while the bus is subscribing to it does not stay subscribed.
func TestARoomThatClosesWhileItIsSubscribedTo(t *testing.T) {
	s := newStage(t)
	subscription, enter := s.other()
	called, proceed := s.bus.stall()
	entered := make(chan struct{})
	go func() {
		defer close(entered)
		enter()
	}()
	<-called
	s.hub.Leave(subscription)
	require.Zero(t, s.hub.Count())
	proceed()
	<-entered
	require.Empty(t, s.subscribed())
	require.Equal(t, []ids.Conversation{otherID}, s.bus.unsubscribed)
}

const otherID = ids.Conversation("g" + "00000000000000000000000000")

func (s *stage) subscribed() (all []ids.Conversation) {
	s.bus.mu.Lock()
	defer s.bus.mu.Unlock()
	for id := range s.bus.subscribed {
		all = append(all, id)
	}
	return all
}

// other returns a subscription to another conversation, and a function that enters its room.
func (s *stage) other() (subscription *Subscription, enter func()) {
	carol := s.client("carol", frame.Proto)
	summary := &historyv1.Summary{ConversationId: string(otherID), JoinedSeq: 1, Head: 1, Members: 1}
	subscription = carol.Subscribe(summary, 1, nil)
	return subscription, func() {
		s.hub.Enter(map[ids.Conversation]*Subscription{otherID: subscription}, []*historyv1.Summary{summary})
	}
}
