package e2e_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/services/gateway"
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

// explained waits until the trails of a user end in the given steps.
func (s *stage) explained(user string, seq uint64, want ...[]gatewayv1.StepKind) *gatewayv1.ExplainResponse {
	s.t.Helper()
	var answer *gatewayv1.ExplainResponse
	require.Eventually(s.t, func() bool {
		answer = s.explain(user, seq)
		return slices.EqualFunc(answer.GetTrails(), want, func(t *gatewayv1.Trail, kinds []gatewayv1.StepKind) bool {
			return slices.Equal(kindsOf(t.GetSteps()), kinds)
		})
	}, patience, patience/3000, "%s has other steps of %d than %v", user, seq, want)
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
	require.NoError(t, s.nc.Publish(broker.LiveSubject(s.id), data))
	bob.seqs(2)
	s.explained("bob", 2, []gatewayv1.StepKind{queued, written})
	bob.ackTo(s.id, 2)
	answer := s.explained("bob", 2, []gatewayv1.StepKind{queued, written, acknowledged})
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
	lost := s.explained("bob", 2, []gatewayv1.StepKind{queued, written})
	require.Equal(t, []gatewayv1.StepKind{missed, gapFilled}, kindsOf(lost.GetSteps()))
	require.Empty(t, lost.GetWorker())
	late := s.explained("bob", 3, []gatewayv1.StepKind{queued, written})
	require.Equal(t, []gatewayv1.StepKind{routed, missed, gapFilled}, kindsOf(late.GetSteps()))
}

func TestExplainComingBack(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(text("2"))
	bob := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	bob.seqs(2)
	s.explained("bob", 1, []gatewayv1.StepKind{resumedBeyond})
	s.explained("bob", 2, []gatewayv1.StepKind{caughtUp, written})
}

func TestExplainRetries(t *testing.T) {
	s := newStage(t, func(cfg *gateway.Config) { cfg.AckTimeout, cfg.AckTries = 100*time.Millisecond, 1 })
	s.commit(group("bob"))
	bob := s.login("bob")
	require.Equal(t, errcode.CloseNoAck, bob.closed())
	answer := s.explained("bob", 1, []gatewayv1.StepKind{caughtUp, written, retried, caughtUp, written})
	require.Eventually(t, func() bool {
		answer = s.explain("bob", 1)
		return answer.GetTrails()[0].GetClosedMs() != 0
	}, patience, patience/3000)
	trail := answer.GetTrails()[0]
	require.Equal(t, uint32(errcode.CloseNoAck), trail.GetCloseCode())
	require.Equal(t, "no_ack", trail.GetCloseReason())
	require.Equal(t, uint64(1), trail.GetStanding().GetSent())
	require.Zero(t, trail.GetStanding().GetAcknowledged())
}

func TestExplainWhatAUserMayNotSee(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	s.commit(removeBob()) // 2
	s.commit(text("secret 3"))
	s.commit(addBob()) // 4
	bob := s.login("bob", &clientv1.Position{ConversationId: s.id, Seq: 1})
	bob.seqs(4)
	s.explained("bob", 2, []gatewayv1.StepKind{caughtUp, written})
	s.explained("bob", 3, []gatewayv1.StepKind{hidden, written})
	s.explained("bob", 4, []gatewayv1.StepKind{caughtUp, written})
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
	answer = s.explained("bob", 1, []gatewayv1.StepKind{caughtUp, written}, []gatewayv1.StepKind{resumedBeyond})
	require.Nil(t, s.explain("ann", 1).GetTrails())
}

// TestExplainASlowClient looks for the event that was queued, and never written because the client was closed as slow.
func TestExplainASlowClient(t *testing.T) {
	s := newStage(t, func(cfg *gateway.Config) { cfg.SendQueueBytes = 64 << 10 })
	s.commit(group("bob", "cem"))
	slow, quick := s.login("bob"), s.login("cem")
	slow.seqs(1)
	quick.seqs(1)
	large, events := strings.Repeat("x", 8000), uint64(1)
	say := func() {
		s.say(large)
		events++
		quick.event(events)
	}
	for s.counter("runnel_gateway_limit_refusals_total", "limit=send_queue_bytes") == 0 { // sockets grow while they are full
		say()
	}
	say()
	require.Equal(t, errcode.CloseSlow, slow.closed())
	var dropped *gatewayv1.Trail
	require.Eventually(t, func() bool {
		for seq := uint64(2); seq <= events; seq++ {
			trail := s.explain("bob", seq).GetTrails()[0]
			if trail.GetClosedMs() != 0 && slices.Equal(kindsOf(trail.GetSteps()), []gatewayv1.StepKind{queued}) {
				dropped = trail
				return true
			}
		}
		return false
	}, patience, patience/300)
	require.Equal(t, "slow", dropped.GetCloseReason())
	require.NotZero(t, dropped.GetStanding().GetSent())
	require.Empty(t, s.explain("bob", events).GetTrails()[0].GetSteps(), "it was gone by then")
	s.explained("cem", events, []gatewayv1.StepKind{queued, written})
}

func TestExplainSaysHowFarItReaches(t *testing.T) {
	s := newStage(t, func(cfg *gateway.Config) { cfg.ExplainEntries = 256 }) // 16 in a shard
	s.commit(group("bob"))
	bob := s.login("bob")
	bob.seqs(1)
	before := s.explain("bob", 1)
	require.Equal(t, before.GetStartedMs(), before.GetRemembersSinceMs(), "nothing was forgotten yet")
	for seq := uint64(2); seq <= 40; seq++ {
		s.say("more")
		bob.seqs(seq)
		bob.ackTo(s.id, seq)
	}
	after := s.explained("bob", 40, []gatewayv1.StepKind{queued, written, acknowledged})
	require.Greater(t, after.GetRemembersSinceMs(), after.GetStartedMs())
	forgotten := s.explain("bob", 2)
	require.Empty(t, forgotten.GetTrails()[0].GetSteps())
	require.Equal(t, uint64(40), forgotten.GetTrails()[0].GetStanding().GetAcknowledged(), "what is known for good")
}

func TestExplainRefusesNonsense(t *testing.T) {
	s := newStage(t, nil)
	s.commit(group("bob"))
	for _, request := range []*gatewayv1.ExplainRequest{
		{ConversationId: s.id, Seq: 1},
		{UserId: "bob", ConversationId: "*", Seq: 1},
		{UserId: "bob", ConversationId: s.id},
	} {
		_, err := s.gw.Server().Explain(t.Context(), request)
		require.Error(t, err)
	}
}
