//go:build linux

package load

import (
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
)

const otherID = "gzyxwvutsrqponmlkjihgfedcba"

func eventOfOther(seq uint64) *clientv1.ServerFrame {
	f := event(seq, "x")
	f.GetEvent().ConversationId = otherID
	return f
}

func TestHeadsOfAllConversationsAreRead(t *testing.T) {
	list := &clientv1.Connected{Conversations: []*clientv1.Conversation{
		{ConversationId: conversationID, Head: 7}, {ConversationId: otherID}, {ConversationId: "g2", Head: 12, Members: 3},
	}}
	_, _, body := classify(line(&clientv1.ServerFrame{Id: 1, Message: &clientv1.ServerFrame_Connected{Connected: list}}))
	heads := map[string]uint64{}
	headsOf(body, func(conversation []byte, head uint64) { heads[string(conversation)] = head })
	require.Equal(t, map[string]uint64{conversationID: 7, otherID: 0, "g2": 12}, heads)
}

// A member follows a conversation from its head at connect and a new one from its first event, acknowledges both, and resumes both.
func TestAMemberFollowsAllItsConversations(t *testing.T) {
	acks, resumed := make(chan *clientv1.AckPosition, 10), make(chan []*clientv1.Position, 2)
	addr := gateway(t, 4, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		switch {
		case f.GetConnect() != nil:
			resumed <- f.GetConnect().GetResume()
			answer(ws, eventOfOther(1), event(5, "x"), eventOfOther(2))
		case f.GetAck() != nil:
			for _, at := range f.GetAck().GetPositions() {
				acks <- at
			}
		}
	})
	r := newRecord()
	l, err := NewLoop(r)
	require.NoError(t, err)
	defer l.Close()
	c := NewMember("u1", "token")
	l.Connect(c, addr)
	require.Empty(t, <-resumed)
	require.Equal(t, []uint64{1, 5, 2}, []uint64{<-r.events, <-r.events, <-r.events})
	delivered := map[string]uint64{}
	for range 2 {
		at := <-acks
		delivered[at.GetConversationId()] = at.GetDelivered()
	}
	require.Equal(t, map[string]uint64{conversationID: 5, otherID: 2}, delivered)
	l.Disconnect(c)
	l.Connect(c, addr)
	require.Len(t, <-resumed, 2)
	require.Eventually(t, func() bool { return l.Repeats() == 3 }, time.Minute, time.Millisecond)
	require.NoError(t, l.Failures())
}

func TestAHoleInOneOfManyConversationsIsAFailure(t *testing.T) {
	addr := gateway(t, 4, func(ws *websocket.Conn, f *clientv1.ClientFrame) {
		if f.GetConnect() != nil {
			answer(ws, eventOfOther(1), eventOfOther(3))
		}
	})
	l, err := NewLoop(newRecord())
	require.NoError(t, err)
	defer l.Close()
	l.Connect(NewMember("u1", "token"), addr)
	require.Eventually(t, func() bool { return l.Failures() != nil }, time.Minute, time.Millisecond)
	require.ErrorContains(t, l.Failures(), "event 3 came after event 1")
}
