package requests_test

import (
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const commandID = "0192f3c0-0000-7000-8000-000000000001"

func hello() *clientv1.Submit {
	return &clientv1.Submit{ConversationId: groupID, CommandId: commandID, Body: &conversationv1.Body{
		Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "hello"}},
	}}
}

// A command is published in the caller's name; the waiter receives its outcome.
func TestASubmitGoesToTheBroker(t *testing.T) {
	s, w := newStage(t, nil), &waiter{}
	require.Nil(t, s.Submit(t.Context(), ann(), 7, hello(), w))
	require.Len(t, s.submitted, 1)
	submission := s.submitted[0]
	require.Equal(t, "ann", submission.Command.GetSender())
	require.Equal(t, groupID, submission.Command.GetConversationId())
	require.Equal(t, commandID, submission.Command.GetCommandId())
	require.Nil(t, submission.Header, "nothing is traced")
	require.Empty(t, w.heard)
	submission.Accepted()
	require.Equal(t, []string{"accepted 7"}, w.heard)
	submission.Done(&conversationv1.Outcome{Seq: 4})
	require.Equal(t, []string{"accepted 7", "outcome 7 " + groupID + " 4 "}, w.heard)
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Outcomes[metrics.OutcomeCommitted]), 0)
}

// The outcome of a create contains the conversation id, which follows from the command.
func TestTheOutcomeOfACreateNamesItsConversation(t *testing.T) {
	s, w := newStage(t, nil), &waiter{}
	create := &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Members: []string{"bob"}}
	require.Nil(t, s.Submit(t.Context(), ann(), 7, &clientv1.Submit{
		CommandId: commandID, Body: &conversationv1.Body{Action: &conversationv1.Body_Create{Create: create}},
	}, w))
	made := s.submitted[0].Command.GetConversationId()
	require.Equal(t, conversation.CreateID("ann", commandID, create), ids.Conversation(made))
	s.submitted[0].Done(&conversationv1.Outcome{Seq: 1})
	require.Equal(t, []string{"outcome 7 " + made + " 1 "}, w.heard)
}

// A malformed command is refused without using the caller's allowance; the error names the field of the submit.
func TestMalformedCommandsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*clientv1.Submit)
		field string
	}{
		"command id":   {func(r *clientv1.Submit) { r.CommandId = "x" }, "submit.command_id"},
		"conversation": {func(r *clientv1.Submit) { r.ConversationId = "x" }, "submit.conversation_id"},
		"attempt":      {func(r *clientv1.Submit) { r.Attempt = protocol.MaxAttempt + 1 }, "submit.attempt"},
		"no body":      {func(r *clientv1.Submit) { r.Body = nil }, "submit.body"},
		"no text":      {func(r *clientv1.Submit) { r.Body.GetMessage().Text = "" }, "submit.body.message"},
	} {
		t.Run(name, func(t *testing.T) {
			s, caller, submit := newStage(t, nil), ann(), hello()
			c.spoil(submit)
			refused := s.Submit(t.Context(), caller, 7, submit, &waiter{})
			require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.GetCode())
			require.Contains(t, refused.GetField(), c.field)
			require.Empty(t, s.submitted)
			require.InDelta(t, 2, caller.Commands.Tokens(), 1e-9)
		})
	}
}

// A kind above the installation's level is refused.
func TestACommandAboveTheLevelIsRefused(t *testing.T) {
	s := newStage(t, nil)
	s.level = 0
	refused := s.Submit(t.Context(), ann(), 7, hello(), &waiter{})
	require.Equal(t, "submit.body", refused.GetField())
	require.Contains(t, refused.GetMessage(), "level")
}

// The rate limits the user, not the connection: commands above it never reach the broker.
func TestCommandsAreLimited(t *testing.T) {
	s, caller := newStage(t, nil), ann()
	for range 2 {
		require.Nil(t, s.Submit(t.Context(), caller, 7, hello(), &waiter{}))
	}
	refused := s.Submit(t.Context(), caller, 7, hello(), &waiter{})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode())
	require.NotZero(t, refused.GetRetryAfterMs())
	require.Len(t, s.submitted, 2)
	require.InDelta(t, 1, testutil.ToFloat64(s.metrics.Limits[metrics.LimitCommandRate]), 0)
}

// If the broker refuses a command, the client gets the reason, and the waiter is not called.
func TestCommandsThatTheBrokerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		code   conversationv1.ErrorCode
		field  string
		limits float64
	}{
		"conflict": {broker.ErrConflict, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "submit.command_id", 0},
		"busy":     {broker.ErrBusy, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, "", 1},
		"closed":   {errors.New("closed"), conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, w, spans := newTraced(t)
			s.refuse = c.err
			refused := s.Submit(t.Context(), ann(), 7, hello(), w)
			require.Equal(t, c.code, refused.GetCode())
			require.Equal(t, c.field, refused.GetField())
			require.InDelta(t, c.limits, testutil.ToFloat64(s.metrics.Limits[metrics.LimitCommands]), 0)
			require.Empty(t, w.heard)
			require.Len(t, spans.Ended(), 2, "its spans are ended")
			for _, span := range spans.Ended() {
				require.Equal(t, codes.Error, span.Status().Code)
				require.Equal(t, c.err.Error(), span.Status().Description)
			}
		})
	}
}

func newTraced(t *testing.T) (*stage, *waiter, *tracetest.SpanRecorder) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	return newStage(t, flight.NewTracer(provider, 0)), &waiter{}, spans
}

// A traced command has one span until the broker holds it, and one until its outcome, which contains the trace.
func TestASubmitIsTraced(t *testing.T) {
	for name, outcome := range map[string]*conversationv1.Outcome{
		"committed": {Seq: 4},
		"refused":   {Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}},
	} {
		t.Run(name, func(t *testing.T) {
			s, w, spans := newTraced(t)
			require.Nil(t, s.Submit(t.Context(), ann(), 7, hello(), w))
			require.Len(t, spans.Started(), 2)
			require.NotEmpty(t, s.submitted[0].Header, "the worker continues the trace")
			require.Empty(t, spans.Ended())
			s.submitted[0].Accepted()
			require.Len(t, spans.Ended(), 1)
			require.Equal(t, "runnel.gateway.publish", spans.Ended()[0].Name())
			s.submitted[0].Done(outcome)
			require.Len(t, spans.Ended(), 2)
			receive := spans.Ended()[1]
			require.Equal(t, "runnel.gateway.receive", receive.Name())
			require.Contains(t, w.heard[1], receive.SpanContext().TraceID().String())
			if outcome.GetError() != nil {
				require.Equal(t, codes.Error, receive.Status().Code)
				require.Equal(t, "forbidden", receive.Status().Description)
			} else {
				require.Equal(t, codes.Unset, receive.Status().Code)
			}
		})
	}
}

// The outcome may arrive before the broker's confirmation, which then changes nothing.
func TestAnOutcomeMayComeFirst(t *testing.T) {
	s, w, spans := newTraced(t)
	require.Nil(t, s.Submit(t.Context(), ann(), 7, hello(), w))
	s.submitted[0].Done(&conversationv1.Outcome{Seq: 4})
	require.Len(t, spans.Ended(), 2)
	s.submitted[0].Accepted()
	require.Len(t, spans.Ended(), 2)
	require.Len(t, w.heard, 2)
}
