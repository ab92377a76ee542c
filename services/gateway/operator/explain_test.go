package operator

import (
	"cmp"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
)

func (s *stage) explain(userID string, seq uint64) *gatewayv1.ExplainResponse {
	s.t.Helper()
	answer, err := s.Explain(s.t.Context(), &gatewayv1.ExplainRequest{UserId: userID, ConversationId: groupID, Seq: seq})
	require.NoError(s.t, err)
	return answer
}

func kinds(steps []*gatewayv1.Step) (kinds []gatewayv1.StepKind) {
	for _, s := range steps {
		kinds = append(kinds, s.GetKind())
	}
	return kinds
}

// The explanation of an event covers everything from the worker's commit to the acknowledgement of each connection of the
// user.
func TestAnEventIsExplained(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann, bob := s.connect("ann"), s.connect("bob")
	log = gatewaytest.Branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	require.Equal(t, uint64(4), ann.next().GetEvent().GetSeq())
	require.Equal(t, uint64(4), bob.next().GetEvent().GetSeq())
	ann.say(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{
		Positions: []*clientv1.AckPosition{{ConversationId: groupID, Delivered: 4}},
	}}})
	require.Eventually(t, func() bool {
		trails := s.explain("ann", 4).GetTrails()
		return trails[0].GetStanding().GetAcknowledged() == 4 && len(trails[0].GetSteps()) == 3
	}, patience, 50*time.Microsecond)

	answer := s.explain("ann", 4)
	require.Equal(t, "gw-1", answer.GetGateway())
	require.Equal(t, "worker-1", answer.GetWorker())
	require.Equal(t, int64(77), answer.GetCommittedNs())
	require.Equal(t, []gatewayv1.StepKind{gatewayv1.StepKind_STEP_KIND_ROUTED}, kinds(answer.GetSteps()))
	require.Len(t, answer.GetTrails(), 1, "those of others are not shown")
	trail := answer.GetTrails()[0]
	require.Equal(t, ann.id, trail.GetConnectionId())
	require.Equal(t, "d-ann", trail.GetDeviceId())
	require.Zero(t, trail.GetClosedMs())
	require.ElementsMatch(t, []gatewayv1.StepKind{
		gatewayv1.StepKind_STEP_KIND_QUEUED, gatewayv1.StepKind_STEP_KIND_WRITTEN, gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED,
	}, kinds(trail.GetSteps()))
	require.GreaterOrEqual(t, answer.GetRemembersSinceMs(), answer.GetStartedMs())
	require.True(t, slices.IsSortedFunc(slices.Concat(answer.GetSteps(), trail.GetSteps()), func(a, b *gatewayv1.Step) int {
		return cmp.Compare(a.GetTimeNs(), b.GetTimeNs())
	}), "by time")

	require.Empty(t, s.explain("cem", 4).GetTrails())
	require.Empty(t, s.explain("ann", 9).GetSteps())
}

// A connection that has ended is explained with the reason of its end and its position.
func TestConnectionsThatEndedAreExplained(t *testing.T) {
	for name, c := range map[string]struct {
		end    func(s *stage, c *client)
		code   uint32
		reason string
	}{
		"lost":        {func(s *stage, c *client) { s.leave(c, 0) }, 1006, "lost"},
		"by the user": {func(s *stage, c *client) { s.leave(c, 1000) }, 1000, "client"},
		"by an operator": {func(s *stage, c *client) {
			_, err := s.Disconnect(s.t.Context(), &gatewayv1.DisconnectRequest{ConnectionId: c.id})
			require.NoError(s.t, err)
			s.gone(c)
		}, uint32(errcode.CloseDisconnected), errcode.CloseDisconnected.String()},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := gatewaytest.Branch(nil, 3, "x")
			s.store.Put(log)
			ann := s.connect("ann")
			log = gatewaytest.Branch(log, 4, "x")
			s.store.Put(log)
			s.live(log[3])
			require.Equal(t, uint64(4), ann.next().GetEvent().GetSeq())
			c.end(s, ann)
			later := s.connect("ann")

			trails := s.explain("ann", 4).GetTrails()
			require.Len(t, trails, 2)
			require.ElementsMatch(t, []string{ann.id, later.id}, []string{trails[0].GetConnectionId(), trails[1].GetConnectionId()})
			gone := trails[0]
			if gone.GetConnectionId() != ann.id {
				gone = trails[1] // both were opened within a millisecond
			}
			require.Equal(t, c.code, gone.GetCloseCode())
			require.Equal(t, c.reason, gone.GetCloseReason())
			require.NotZero(t, gone.GetClosedMs())
			require.Equal(t, uint64(3), gone.GetStanding().GetAcknowledged())
			require.Equal(t, uint64(4), gone.GetStanding().GetSent())
			require.Equal(t, gatewayv1.StepKind_STEP_KIND_QUEUED, gone.GetSteps()[0].GetKind())
		})
	}
}

// Repeats are explained step by step, up to the close of a client that acknowledges nothing.
func TestRetriesAreExplained(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.connect("ann")
	log = gatewaytest.Branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	require.Equal(t, uint64(4), ann.next().GetEvent().GetSeq())
	s.deps.Rooms.Sweep(time.Now().Add(2 * patience))
	require.Equal(t, uint64(4), ann.next().GetEvent().GetSeq())
	want := []gatewayv1.StepKind{ // the sweep is in the future, and so is its step
		gatewayv1.StepKind_STEP_KIND_QUEUED, gatewayv1.StepKind_STEP_KIND_WRITTEN, gatewayv1.StepKind_STEP_KIND_RETRIED,
		gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, gatewayv1.StepKind_STEP_KIND_WRITTEN,
	}
	require.Eventually(t, func() bool {
		got := kinds(s.explain("ann", 4).GetTrails()[0].GetSteps())
		return slices.Equal(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got)))
	}, patience, time.Millisecond)
	require.Equal(t, uint32(1), s.explain("ann", 4).GetTrails()[0].GetStanding().GetRetries())
}

const (
	routed        = gatewayv1.StepKind_STEP_KIND_ROUTED
	missed        = gatewayv1.StepKind_STEP_KIND_MISSED
	gapFilled     = gatewayv1.StepKind_STEP_KIND_GAP_FILLED
	queued        = gatewayv1.StepKind_STEP_KIND_QUEUED
	written       = gatewayv1.StepKind_STEP_KIND_WRITTEN
	caughtUp      = gatewayv1.StepKind_STEP_KIND_CAUGHT_UP
	hidden        = gatewayv1.StepKind_STEP_KIND_HIDDEN
	resumedBeyond = gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND
)

// requireSteps waits until ann's only connection has these steps for an event, each of which covers the event.
func (s *stage) requireSteps(seq uint64, want ...gatewayv1.StepKind) (answer *gatewayv1.ExplainResponse) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		answer = s.explain("ann", seq)
		return len(answer.GetTrails()) == 1 && slices.Equal(want, kinds(answer.GetTrails()[0].GetSteps()))
	}, patience, 50*time.Microsecond, "steps of %d", seq)
	for _, step := range answer.GetTrails()[0].GetSteps() {
		require.LessOrEqual(s.t, step.GetFirst(), seq)
		require.GreaterOrEqual(s.t, step.GetLast(), seq)
	}
	return answer
}

// A live message that was lost is explained, and so is the event after it, which had to wait.
func TestALostLiveMessageIsExplained(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.connect("ann")
	log = gatewaytest.Branch(log, 5, "x")
	s.store.Put(log)
	s.live(log[4])
	require.Equal(t, uint64(4), ann.next().GetEvent().GetSeq())
	require.Equal(t, uint64(5), ann.next().GetEvent().GetSeq())
	lost := s.requireSteps(4, queued, written)
	require.Equal(t, []gatewayv1.StepKind{missed, gapFilled}, kinds(lost.GetSteps()))
	require.Empty(t, lost.GetWorker(), "no worker is known to have published it")
	late := s.requireSteps(5, queued, written)
	require.Equal(t, []gatewayv1.StepKind{routed, missed, gapFilled}, kinds(late.GetSteps()))
	require.Equal(t, "worker-1", late.GetWorker())
}

// A client that comes back is explained by what it had, and by what it was sent.
func TestAResumeIsExplained(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.connect("ann", gatewaytest.Position(log[1]))
	require.Equal(t, uint64(3), ann.next().GetEvent().GetSeq())
	s.requireSteps(2, resumedBeyond)
	s.requireSteps(3, caughtUp, written)
}

// Events between two memberships are explained as hidden.
func TestWhatAUserMayNotSeeIsExplained(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 6, "x")
	s.store.Put(log)
	s.store.Set(func() { s.store.Earlier, s.store.Joined = 3, 6 })
	ann := s.connect("ann", gatewaytest.Position(log[0]))
	for _, seq := range []uint64{2, 3} {
		require.Equal(t, seq, ann.next().GetEvent().GetSeq())
	}
	told := ann.next().GetHidden()
	require.Equal(t, []uint64{4, 5}, []uint64{told.GetFirst(), told.GetLast()})
	require.Equal(t, uint64(6), ann.next().GetEvent().GetSeq())
	s.requireSteps(3, caughtUp, written)
	s.requireSteps(4, hidden, written)
	s.requireSteps(6, caughtUp, written)
}

// A standing in another conversation does not affect the explanation.
func TestAStandingElsewhereIsNotShown(t *testing.T) {
	s := newStage(t)
	log := gatewaytest.Branch(nil, 3, "x")
	s.store.Put(log)
	ann := s.connect("ann")
	log = gatewaytest.Branch(log, 4, "x")
	s.store.Put(log)
	s.live(log[3])
	ann.next()
	other := "g0123456789abcdefghijklmnoo"
	ask := &gatewayv1.ExplainRequest{UserId: "ann", ConversationId: other, Seq: 4}
	answer, err := s.Explain(t.Context(), ask)
	require.NoError(t, err)
	require.Nil(t, answer.GetTrails()[0].GetStanding())
	require.Empty(t, answer.GetTrails()[0].GetSteps())
	s.leave(ann, 0)
	answer, err = s.Explain(t.Context(), ask)
	require.NoError(t, err)
	require.Nil(t, answer.GetTrails()[0].GetStanding())
}

// If there are too many connections, the newest ones are explained.
func TestAnExplanationIsBounded(t *testing.T) {
	s := newStage(t)
	s.many("ann", maxTrails+1)
	require.Len(t, s.explain("ann", 1).GetTrails(), maxTrails)
}

func TestExplanationsThatAreRefused(t *testing.T) {
	s := newStage(t)
	for field, request := range map[string]*gatewayv1.ExplainRequest{
		"user_id":         {UserId: "", ConversationId: groupID, Seq: 1},
		"conversation_id": {UserId: "ann", ConversationId: "x", Seq: 1},
		"seq":             {UserId: "ann", ConversationId: groupID, Seq: protocol.MaxSeq + 1},
		"seq:":            {UserId: "ann", ConversationId: groupID},
	} {
		_, err := s.Explain(t.Context(), request)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
		require.ErrorContains(t, err, field)
	}
	_, err := s.Explain(t.Context(), &gatewayv1.ExplainRequest{UserId: "ann", ConversationId: groupID, Seq: protocol.MaxSeq})
	require.NoError(t, err)
}

func TestCloseCodesHaveNames(t *testing.T) {
	require.Equal(t, "lost", closeReason(0))
	require.Equal(t, "lost", closeReason(closeAbnormal))
	require.Equal(t, "client", closeReason(1000))
	require.Equal(t, errcode.CloseGoingAway.String(), closeReason(errcode.CloseGoingAway))
}
