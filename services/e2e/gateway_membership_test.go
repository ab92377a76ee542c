package e2e_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/frame"
)

// interposed is the real history, with something that happens right before its next answer of a kind: the moment between
// a gateway's look at the store and what it does about it.
type interposed struct {
	historyv1.HistoryServiceClient // may be replaced before the first client connects

	installation historyv1.HistoryServiceClient // asked from the beginning, so never replaced

	mu          sync.Mutex
	heads, read func()
}

// GetInstallation is what the gateway polls while tests replace the rest.
func (h *interposed) GetInstallation(
	ctx context.Context, request *historyv1.GetInstallationRequest, options ...grpc.CallOption,
) (*historyv1.GetInstallationResponse, error) {
	return h.installation.GetInstallation(ctx, request, options...)
}

func (h *interposed) next(hook *func()) {
	h.mu.Lock()
	happen := *hook
	*hook = nil
	h.mu.Unlock()
	if happen != nil {
		happen()
	}
}

// beforeHeads has something happen before the next new room learns where it stands.
func (h *interposed) beforeHeads(happen func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heads = happen
}

// beforeFill has something happen before the next filler reads.
func (h *interposed) beforeFill(happen func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.read = happen
}

func (h *interposed) Heads(ctx context.Context, r *historyv1.HeadsRequest, o ...grpc.CallOption) (*historyv1.HeadsResponse, error) {
	if len(r.GetConversationIds()) > 0 {
		h.next(&h.heads)
	}
	return h.HistoryServiceClient.Heads(ctx, r, o...)
}

func (h *interposed) Read(ctx context.Context, r *historyv1.ReadRequest, o ...grpc.CallOption) (*historyv1.ReadResponse, error) {
	if r.GetViewer() == "" {
		h.next(&h.read)
	}
	return h.HistoryServiceClient.Read(ctx, r, o...)
}

func removeBob() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: "bob"}}}
}

func addBob() *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob"}}}}
}

// untilDetached gives the seqs that were pushed before the membership ended.
func (r *raw) untilDetached() (seqs []uint64) {
	r.t.Helper()
	r.until(func(f *clientv1.ServerFrame) bool {
		if f.GetEvent() != nil {
			seqs = append(seqs, f.GetEvent().GetSeq())
		}
		return f.GetDetached() != nil
	})
	return seqs
}

// TestARemovalWhileConnectingEndsTheSeat is I8: nobody gets an event of a time when they were no member, not even when they
// are removed between the list of their conversations and the moment at which their subscription is in place.
func TestARemovalWhileConnectingEndsTheSeat(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.history.beforeHeads(func() {
		s.commit(removeBob()) // 2
		s.commit(text("secret 3"))
	})
	bob := s.login("bob")
	require.Equal(t, []uint64{1, 2}, bob.untilDetached())
	ann := s.login("ann")
	ann.seqs(3)
	s.say("secret 4")
	ann.seqs(4)
	bob.hearsNothing(s)
}

// hearsNothing asks for something: whatever was queued before comes before the answer.
func (r *raw) hearsNothing(s *stage) {
	r.t.Helper()
	r.next++
	r.send(&clientv1.ClientFrame{Id: r.next, Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}})
	r.until(func(f *clientv1.ServerFrame) bool {
		require.Nil(s.t, f.GetEvent())
		return f.GetId() == r.next
	})
}

func TestLeavingTwiceWhileBehindShowsNothingBetween(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(text("2"))
	ann := s.login("ann", &clientv1.Position{ConversationId: s.id, Seq: 2})
	s.history.beforeFill(func() {
		s.tell(s.commit(removeBob()), s.commit(text("secret 4")), s.commit(addBob()), s.commit(removeBob()))
		ann.seqs(6)
	})
	bob := s.login("bob")
	require.Equal(t, []uint64{1, 2, 3}, bob.untilDetached())
	bob.hearsNothing(s)
}

func TestComingBackWhileBehindIsNotMissed(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(text("2"))
	ann := s.login("ann", &clientv1.Position{ConversationId: s.id, Seq: 2})
	s.history.beforeFill(func() {
		s.tell(s.commit(removeBob()), s.commit(addBob()))
		ann.seqs(4)
	})
	bob := s.login("bob")
	require.Equal(t, []uint64{1, 2, 3}, bob.untilDetached())
	s.say("5")
	require.Equal(t, []uint64{4, 5}, bob.seqs(5))
}

func TestARoomClosesWhenItsLastMemberHereLeaves(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	s.tell(s.commit(removeBob()))
	bob.untilDetached()
	require.Eventually(t, func() bool {
		return s.counter("runnel_gateway_rooms") == 0
	}, patience, patience/1000)
}

func TestNamedConversationsThatOneCannotKnowAreSaidToBeUnknown(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	eve := s.login("eve", &clientv1.Position{ConversationId: s.id, Seq: 1})
	require.Zero(t, eve.until(func(f *clientv1.ServerFrame) bool { return f.GetDetached() != nil }).GetDetached().GetLast())
	beyond := dialAt(t, s.url(), frame.JSON)
	answer := beyond.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{
		Token: token(t, "eve"), DeviceId: "d", Resume: []*clientv1.Position{{ConversationId: s.id, Seq: 1 << 63}},
	}}})
	require.Equal(t, "connect.resume[0].seq", answer.GetError().GetField())
}
