package room

import (
	"context"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// shown is a store that shows each user only what their membership covers, as the history service does.
type shown struct {
	Log

	mu      sync.Mutex
	log     []*conversationv1.Event
	members map[ids.User]*conversationv1.Range // a last seq of 0 means that the membership lasts
	viewers []ids.User
}

func (s *shown) Heads(context.Context, *historyv1.HeadsRequest, ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.log[len(s.log)-1]
	return &historyv1.HeadsResponse{Heads: []*historyv1.Head{{ConversationId: groupID, Head: last.GetSeq(), HeadHash: last.GetHash()}}}, nil
}

func (s *shown) Read(_ context.Context, request *historyv1.ReadRequest, _ ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.viewers = append(s.viewers, ids.User(request.GetViewer()))
	m := s.members[ids.User(request.GetViewer())]
	if m == nil {
		return nil, status.Error(codes.NotFound, "never a member")
	}
	read := &historyv1.ReadResponse{Member: m.GetLast() == 0, Head: m.GetLast()}
	if read.GetMember() {
		read.Head = uint64(len(s.log))
	}
	next := request.GetAfter() + 1
	if m.GetFirst() > next {
		read.Hidden = []*conversationv1.Range{{First: next, Last: m.GetFirst() - 1}}
		next = m.GetFirst()
	}
	if next <= read.GetHead() {
		read.Events = s.log[next-1 : read.GetHead()]
	}
	return read, nil
}

// viewed is a stage whose store shows each user what their membership covers. The room has taken all events but the last three.
func viewed(t *testing.T, members map[ids.User]*conversationv1.Range) (*stage, *shown, *Room) {
	t.Helper()
	s := newStage(t)
	store := &shown{log: branch(nil, 5, "x"), members: members}
	s.hub.cfg.Log = store
	r := s.room()
	store.mu.Lock()
	store.log = branch(store.log, 8, "x")
	store.mu.Unlock()
	return s, store, r
}

// joins subscribes a user from the event that began their membership, with everything up to base.
func (c *client) joins(from, head, base uint64) {
	summary := &historyv1.Summary{ConversationId: groupID, JoinedSeq: from, Head: head}
	c.subscriptions[groupID] = c.Subscribe(summary, ids.Seq(base), nil)
	c.stage.hub.Enter(c.subscriptions, []*historyv1.Summary{summary})
}

// A room fills a gap in the name of a subscriber who may see it, and never without one.
func TestAGapIsReadInTheNameOfASubscriber(t *testing.T) {
	s, store, r := viewed(t, map[ids.User]*conversationv1.Range{"ann": {First: 1}, "dan": {First: 8}})
	dan, ann := s.client("dan", frame.Proto), s.client("ann", frame.Proto)
	ann.joins(1, 5, 5)
	r.mu.Lock()
	require.Equal(t, ids.User("ann"), r.viewerLocked(5, nil).to.User)
	require.Nil(t, r.viewerLocked(5, map[ids.User]bool{"ann": true}))
	r.mu.Unlock()
	dan.joins(8, 8, 7)
	require.Equal(t, uint64(6), ann.next().GetEvent().GetSeq())
	require.Equal(t, uint64(7), ann.next().GetEvent().GetSeq())
	require.Equal(t, uint64(8), ann.next().GetEvent().GetSeq())
	require.Equal(t, uint64(8), dan.next().GetEvent().GetSeq())
	require.Equal(t, []ids.User{"ann"}, store.viewers)
}

// Events that no subscriber may see are passed over: nobody needs them.
func TestAGapThatNobodyMaySeeIsPassedOver(t *testing.T) {
	s, store, r := viewed(t, map[ids.User]*conversationv1.Range{"dan": {First: 8}})
	dan := s.client("dan", frame.Proto)
	dan.joins(8, 8, 7)
	require.Equal(t, uint64(8), dan.next().GetEvent().GetSeq())
	require.Equal(t, []ids.User{"dan"}, store.viewers)
	require.Zero(t, testutil.ToFloat64(s.metrics.Reloads))
	store.mu.Lock()
	store.log = branch(store.log, 9, "x")
	store.mu.Unlock()
	s.live(r, store.log[8])
	require.Equal(t, uint64(9), dan.next().GetEvent().GetSeq())
}

// A subscriber whose membership ended before the gap does not hinder others.
func TestAGapIsNotReadInTheNameOfAFormerMember(t *testing.T) {
	s, store, r := viewed(t, map[ids.User]*conversationv1.Range{"bob": {First: 1, Last: 5}, "ann": {First: 1}})
	bob, ann := s.client("bob", frame.Proto), s.client("ann", frame.Proto)
	bob.joins(1, 5, 5) // the room does not know that the membership has ended
	ann.joins(1, 5, 5)
	s.live(r, store.log[7])
	for seq := uint64(6); seq <= 8; seq++ {
		require.Equal(t, seq, ann.next().GetEvent().GetSeq())
	}
	require.Equal(t, []ids.User{"bob", "ann"}, store.viewers)
}

// A subscriber whom the store, restored from a backup, does not know as a member is on another branch of the log.
func TestASubscriberWhomTheStoreDoesNotKnowIsForked(t *testing.T) {
	s, store, r := viewed(t, map[ids.User]*conversationv1.Range{})
	ann := s.client("ann", frame.Proto)
	ann.joins(3, 5, 4)
	require.Equal(t, uint64(4), ann.next().GetForked().GetSeq())
	bob := s.client("bob", frame.Proto)
	bob.joins(3, 5, 5)
	s.live(r, store.log[7])
	require.NotNil(t, bob.next().GetForked())
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Reloads), 0)
}

// Subscriptions that are behind at the same seq share a read, and each is judged by what the store shows to its own user.
func TestAReadThatIsSharedJudgesEachUserAlone(t *testing.T) {
	s, _, r := viewed(t, map[ids.User]*conversationv1.Range{"ann": {First: 1}})
	_, err := r.load(2, "eve")
	require.ErrorIs(t, err, errUnseen)
	_, reader, err := r.loadAs("2", 2, "eve")
	require.ErrorIs(t, err, errUnseen)
	require.Equal(t, ids.User("eve"), reader)
	entries, err := r.load(2, "ann")
	require.NoError(t, err)
	require.Len(t, entries, 6)
	_ = s
}
