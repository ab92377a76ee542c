package session

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

func remove(log []*conversationv1.Event, userID string) []*conversationv1.Event {
	return append(log, gatewaytest.Next(log, "ann", &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{
		RemoveMember: &conversationv1.RemoveMember{Member: userID},
	}}))
}

func add(log []*conversationv1.Event, userID string) []*conversationv1.Event {
	return append(log, gatewaytest.Next(log, "ann", &conversationv1.Body{Action: &conversationv1.Body_AddMembers{
		AddMembers: &conversationv1.AddMembers{Members: []string{userID}},
	}}))
}

// A revocation notice that arrives after the store reported no revocation, and before the client is connected, closes the
// session.
func TestANoticeFindsASessionThatIsConnecting(t *testing.T) {
	s := newStage(t)
	s.history.once(&s.history.afterList, func() { s.Revoke("ann", time.Unix(1000, 0).UnixMilli()) })
	c := s.open(frame.Proto)
	c.say(connectFrame(&clientv1.Connect{Token: s.token("ann"), DeviceId: "d"}))
	c.requireClosed(errcode.CloseUnauthenticated)
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Revoked), 0)
}

// A revocation notice that arrives after the store was asked about a new token, and before the token is in force, makes the
// gateway refuse it; the session continues with its newer one.
func TestANoticeFindsATokenThatIsBeingReplaced(t *testing.T) {
	s := newStage(t)
	s.verifier().set("new", auth.Claims{User: "ann", IssuedAt: time.Unix(3000, 0)})
	s.verifier().set("old", auth.Claims{User: "ann", IssuedAt: time.Unix(1000, 0)})
	c := s.open(frame.Proto)
	c.connectWith(&clientv1.Connect{Token: "new", DeviceId: "d"})
	s.history.once(&s.history.afterAsked, func() { s.Revoke("ann", time.Unix(2000, 0).UnixMilli()) })
	refresh := &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: "old"}}}
	require.Equal(t, tokenRevoked, c.ask(refresh).GetError().GetMessage())
	c.quiet()
	require.InDelta(t, 0, testutil.ToFloat64(s.metrics.Revoked), 0)
}

// A user who is removed between the list of their conversations and the moment at which the subscription takes effect gets
// no later event.
func TestARemovalWhileConnectingEndsTheSubscription(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 1, "x")
	s.store.Put(log)
	s.history.once(&s.history.beforeHeads, func() {
		log := branch(remove(log, "bob"), 4, "secret")
		s.store.Set(func() { s.store.Log, s.store.Left = log, 2 })
	})
	bob := s.open(frame.Proto)
	bob.connectWith(&clientv1.Connect{Token: s.token("bob"), DeviceId: "d", Start: clientv1.Start_START_FIRST})
	require.Equal(t, []uint64{1, 2}, bob.seqs(2))
	require.Equal(t, uint64(2), bob.next().GetDetached().GetLast())
	bob.quiet()
	require.Nil(t, bob.subscription())
}

// A user who is removed and comes back while behind gets the events of both memberships.
func TestComingBackWhileBehindIsNotMissed(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 2, "x")
	s.store.Put(log)
	ann := s.connect("ann", frame.Proto)
	s.history.once(&s.history.ahead, func() {
		log := add(remove(log, "bob"), "bob")
		s.store.Set(func() { s.store.Log, s.store.Joined, s.store.Earlier = log, 4, 3 })
		s.live(log[2:]...)
		assert.Equal(t, []uint64{3, 4}, ann.seqs(2))
	})
	bob := s.open(frame.Proto)
	bob.connectWith(&clientv1.Connect{Token: s.token("bob"), DeviceId: "d", Start: clientv1.Start_START_FIRST})
	require.Equal(t, []uint64{1, 2, 3}, bob.seqs(3))
	require.Equal(t, uint64(3), bob.next().GetDetached().GetLast())
	require.Equal(t, groupID, bob.next().GetAttached().GetConversation().GetConversationId())
	require.Equal(t, []uint64{4}, bob.seqs(1))
	bob.quiet()
}

// A conversation that the user joins while connecting, after the list was read, is subscribed to once the session is open.
func TestAJoinWhileConnectingIsNotMissed(t *testing.T) {
	s := newStage(t)
	s.history.once(&s.history.afterList, func() {
		s.store.Put(branch(nil, 2, "x"))
		s.Joined("ann", groupID, 1)
	})
	c := s.connect("ann", frame.Proto)
	require.Equal(t, groupID, c.next().GetAttached().GetConversation().GetConversationId())
	require.Equal(t, []uint64{1, 2}, c.seqs(2))
	c.quiet()
}

// A notice that arrives while the same conversation is being looked up causes a second lookup: the first answer may be too
// old.
func TestAJoinDuringAJoinIsNotMissed(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	s.history.once(&s.history.afterList, func() { // the first answer is: not a member
		s.store.Put(branch(nil, 2, "x"))
		s.Joined("ann", groupID, 1)
		s.Joined("ann", groupID, 1)
	})
	s.Joined("ann", groupID, 1)
	require.NotNil(t, c.next().GetAttached())
	require.Equal(t, []uint64{1, 2}, c.seqs(2))
	c.quiet()
	lists := 0
	s.store.Set(func() { lists = s.store.Lists })
	require.Equal(t, 3, lists, "once for connecting, and twice for the three notices")
}

// A session that ends while a conversation is being looked up, or entered, leaves nothing behind.
func TestASessionThatEndsWhileJoining(t *testing.T) {
	for name, moment := range map[string]func(*hooked) *func(){
		"looked up": func(h *hooked) *func() { return &h.afterList },
		"entered":   func(h *hooked) *func() { return &h.beforeHeads },
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			c := s.connect("ann", frame.Proto)
			s.store.Put(branch(nil, 2, "x"))
			s.history.once(moment(s.history), func() {
				c.far.Lose()
				c.requireForgotten()
			})
			s.Joined("ann", groupID, 1)
			c.requireForgotten()
			s.Wait()
			require.Zero(t, s.deps.Rooms.Count())
		})
	}
}

// A client that received a fork gets no more events of the conversation, so no standing is kept when its session ends.
func TestAForkedClientLeavesNoRoomBehind(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.store.Put(log)
	c := s.connect("bob", frame.Proto, position(branch(nil, 9, "other")[8]))
	c.requireForked(3, 9)
	c.far.Lose()
	c.requireForgotten()
	require.Zero(t, s.deps.Rooms.Count())
}

// A session that ends before its new subscription is in the room does not see the subscription, which is removed all the
// same.
func TestASessionThatEndsBeforeItsSubscriptionIsInTheRoom(t *testing.T) {
	s := newStage(t)
	c := s.connect("ann", frame.Proto)
	s.store.Put(branch(nil, 2, "x"))
	s.bus.before = func() {
		c.far.Lose()
		c.requireForgotten()
	}
	s.Joined("ann", groupID, 1)
	c.requireForgotten()
	s.Wait()
	require.Zero(t, s.deps.Rooms.Count())
}
