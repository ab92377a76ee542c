package e2e_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	routed        = gatewayv1.StepKind_STEP_KIND_ROUTED
	missed        = gatewayv1.StepKind_STEP_KIND_MISSED
	gapFilled     = gatewayv1.StepKind_STEP_KIND_GAP_FILLED
	queued        = gatewayv1.StepKind_STEP_KIND_QUEUED
	caughtUp      = gatewayv1.StepKind_STEP_KIND_CAUGHT_UP
	written       = gatewayv1.StepKind_STEP_KIND_WRITTEN
	acknowledged  = gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED
	retried       = gatewayv1.StepKind_STEP_KIND_RETRIED
	hidden        = gatewayv1.StepKind_STEP_KIND_HIDDEN
	resumedBeyond = gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND
)

func (s *stage) explain(user string, seq uint64) *gatewayv1.ExplainResponse {
	s.t.Helper()
	answer, err := s.gw.Server().Explain(s.t.Context(), &gatewayv1.ExplainRequest{UserId: user, ConversationId: s.id, Seq: seq})
	require.NoError(s.t, err)
	return answer
}

// explained waits until the trails of bob end in the given steps.
func (s *stage) explained(seq uint64, want ...[]gatewayv1.StepKind) *gatewayv1.ExplainResponse {
	s.t.Helper()
	var answer *gatewayv1.ExplainResponse
	require.Eventually(s.t, func() bool {
		answer = s.explain("bob", seq)
		return slices.EqualFunc(answer.GetTrails(), want, func(t *gatewayv1.Trail, kinds []gatewayv1.StepKind) bool {
			return slices.Equal(kindsOf(t.GetSteps()), kinds)
		})
	}, patience, patience/3000, "bob has other steps of %d than %v", seq, want)
	for _, trail := range answer.GetTrails() {
		for _, step := range trail.GetSteps() {
			require.LessOrEqual(s.t, step.GetFirst(), seq)
			require.GreaterOrEqual(s.t, step.GetLast(), seq)
		}
	}
	return answer
}

func kindsOf(steps []*gatewayv1.Step) []gatewayv1.StepKind {
	kinds := []gatewayv1.StepKind{}
	for _, step := range steps {
		kinds = append(kinds, step.GetKind())
	}
	return kinds
}

func TestExplainAnEventThatArrived(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	before := time.Now().UnixNano()
	data, err := (&brokerv1.Live{Events: []*conversationv1.Event{s.commit(text("2"))}, Worker: "dw-1", CommittedNs: before}).MarshalVT()
	require.NoError(t, err)
	require.NoError(t, s.nc.Publish(broker.LiveSubject(ids.Conversation(s.id)), data))
	bob.seqs(2)
	s.explained(2, []gatewayv1.StepKind{queued, written})
	bob.ackTo(s.id, 2)
	answer := s.explained(2, []gatewayv1.StepKind{queued, written, acknowledged})
	require.Equal(t, []gatewayv1.StepKind{routed}, kindsOf(answer.GetSteps()))
	require.Equal(t, "dw-1", answer.GetWorker())
	require.Equal(t, before, answer.GetCommittedNs())
	require.Equal(t, s.gw.ID(), answer.GetGateway())
	trail := answer.GetTrails()[0]
	require.Equal(t, "test", trail.GetDeviceId())
	require.Zero(t, trail.GetClosedMs())
	require.Equal(t, uint64(2), trail.GetStanding().GetAcknowledged())
	last := before
	for _, step := range append(answer.GetSteps(), trail.GetSteps()...) {
		require.GreaterOrEqual(t, step.GetTimeNs(), last, "%v is in order", step.GetKind())
		last = step.GetTimeNs()
	}
	require.Empty(t, s.explain("cem", 2).GetTrails())
	require.Empty(t, s.explain("bob", 3).GetTrails()[0].GetSteps())
}

func TestExplainALostLiveMessage(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	s.commit(text("2, lost"))
	s.say("3")
	bob.seqs(3)
	lost := s.explained(2, []gatewayv1.StepKind{queued, written})
	require.Equal(t, []gatewayv1.StepKind{missed, gapFilled}, kindsOf(lost.GetSteps()))
	require.Empty(t, lost.GetWorker())
	late := s.explained(3, []gatewayv1.StepKind{queued, written})
	require.Equal(t, []gatewayv1.StepKind{routed, missed, gapFilled}, kindsOf(late.GetSteps()))
}

func TestExplainComingBack(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(text("2"))
	bob := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	bob.seqs(2)
	s.explained(1, []gatewayv1.StepKind{resumedBeyond})
	s.explained(2, []gatewayv1.StepKind{caughtUp, written})
}

func TestExplainWhatAUserMayNotSee(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(removeBob()) // 2
	s.commit(text("secret 3"))
	s.commit(addBob()) // 4
	bob := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	bob.seqs(4)
	s.explained(2, []gatewayv1.StepKind{caughtUp, written})
	s.explained(3, []gatewayv1.StepKind{hidden, written})
	s.explained(4, []gatewayv1.StepKind{caughtUp, written})
}

func TestExplainALostConnection(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	require.NoError(t, bob.ws.NetConn().Close())
	var answer *gatewayv1.ExplainResponse
	require.Eventually(t, func() bool {
		answer = s.explain("bob", 1)
		return answer.GetTrails()[0].GetClosedMs() != 0
	}, patience, patience/3000)
	require.Equal(t, "lost", answer.GetTrails()[0].GetCloseReason())
	require.LessOrEqual(t, answer.GetConnectionsSinceMs(), answer.GetTrails()[0].GetOpenedMs())
	s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	answer = s.explained(1, []gatewayv1.StepKind{caughtUp, written}, []gatewayv1.StepKind{resumedBeyond})
	require.Nil(t, s.explain("ann", 1).GetTrails())
}
