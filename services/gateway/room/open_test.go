package room

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

// slowHeads is a store whose reads of heads wait for the test.
type slowHeads struct {
	*gatewaytest.Store

	reads chan []string // the conversations of each read, once for each read
	err   chan error    // its result
}

func (s *slowHeads) Heads(ctx context.Context, request *historyv1.HeadsRequest, options ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	s.reads <- request.GetConversationIds()
	if err := <-s.err; err != nil {
		return nil, err
	}
	return s.Store.Heads(ctx, request, options...)
}

// summariesOf returns summaries of new conversations.
func summariesOf(from, to int) (list []*historyv1.Summary) {
	for i := from; i < to; i++ {
		list = append(list, &historyv1.Summary{ConversationId: fmt.Sprintf("g0192f3c0-0000-7000-8000-%012d", i), JoinedSeq: 1})
	}
	return list
}

// enter subscribes a client to conversations.
func (s *stage) enter(name string, summaries []*historyv1.Summary) {
	c := s.client(name, frame.Proto)
	subscriptions := map[ids.Conversation]*Subscription{}
	for _, summary := range summaries {
		subscriptions[ids.Conversation(summary.GetConversationId())] = c.Subscribe(summary, 0, nil)
	}
	s.hub.Enter(subscriptions, summaries)
}

// Rooms that are created while others are opened are opened together, by one read of history.
func TestRoomsThatWaitAreOpenedTogether(t *testing.T) {
	s := newStage(t)
	slow := &slowHeads{Store: s.store, reads: make(chan []string), err: make(chan error)}
	s.hub.cfg.Log = slow
	first := make(chan struct{})
	go func() {
		s.enter("first", summariesOf(0, 1))
		close(first)
	}()
	require.Len(t, <-slow.reads, 1)
	for i := 1; i <= 20; i++ {
		s.enter(fmt.Sprint("user", i), summariesOf(i, i+1)) // does not wait
	}
	slow.err <- nil
	require.Len(t, <-slow.reads, 20)
	<-first
	slow.err <- nil
	for _, r := range s.hub.all() {
		require.Eventually(t, func() bool { return r.Show(0).Ready }, patience, time.Millisecond)
	}
}

// Rooms that cannot be opened do not keep others from being opened.
func TestRoomsThatFailDoNotDelayOthers(t *testing.T) {
	s := newStage(t)
	slow := &slowHeads{Store: s.store, reads: make(chan []string), err: make(chan error)}
	s.hub.cfg.Log = slow
	entered := make(chan struct{})
	go func() {
		s.enter("ann", summariesOf(0, 1))
		s.enter("bob", summariesOf(1, 2))
		close(entered)
	}()
	failing := (<-slow.reads)[0]
	slow.err <- context.DeadlineExceeded
	for range 2 { // the second try of ann's room, and bob's, in any order
		id := (<-slow.reads)[0]
		if id == failing {
			slow.err <- context.DeadlineExceeded
			continue
		}
		slow.err <- nil
		require.Eventually(t, func() bool { return s.hub.Room(ids.Conversation(id)).Show(0).Ready }, patience, time.Millisecond)
	}
	<-entered
	require.False(t, s.hub.Room(ids.Conversation(failing)).Show(0).Ready)
	require.Equal(t, failing, (<-slow.reads)[0])
	slow.err <- nil
}

// Each call of history has its own time limit: many rooms that are opened together do not run out of it, and a failing call does not
// prevent the others.
func TestManyRoomsAreOpenedAlthoughHistoryIsSlow(t *testing.T) {
	s := newStage(t)
	slow := &slowHeads{Store: s.store, reads: make(chan []string), err: make(chan error)}
	s.hub.cfg.Log = slow
	go s.enter("ann", summariesOf(0, 3*headsPerCall))
	for i, err := range []error{nil, context.DeadlineExceeded, nil} {
		require.Len(t, <-slow.reads, headsPerCall, "call %d", i)
		slow.err <- err
	}
	require.Len(t, <-slow.reads, headsPerCall, "only those that are not open")
	slow.err <- nil
	for _, r := range s.hub.all() {
		require.Eventually(t, r.isReady, patience, time.Millisecond)
	}
}
