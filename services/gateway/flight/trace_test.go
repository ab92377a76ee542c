package flight

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const clientTrace = "0123456789abcdef0123456789abcdef"

// A command has one span until its outcome, and below it one until the broker holds it; the worker's span is a child of the
// latter.
func TestACommandIsTraced(t *testing.T) {
	s := newSpans(t, 0)
	span, header := s.Begin(t.Context(), Limiter(0), &clientv1.Submit{CommandId: "k"}, "c", 4)
	require.NotEmpty(t, span.Parent)
	span.Accepted()
	publish := s.one(spanPublish)
	require.Contains(t, header.Get("traceparent"), publish.SpanContext().SpanID().String())
	span.End(&conversationv1.Outcome{Seq: 9})
	s.requireEnded(2)
	receive := s.one(spanReceive)
	require.Contains(t, span.Parent, receive.SpanContext().SpanID().String())
	require.Equal(t, receive.SpanContext().SpanID(), publish.Parent().SpanID())
	require.Equal(t, "k", attributeOf(receive, attrCommand).AsString())
	require.Equal(t, "c", attributeOf(receive, attrConversation).AsString())
	require.Equal(t, int64(9), attributeOf(receive, attrSeq).AsInt64())
	require.Equal(t, codes.Unset, receive.Status().Code)
}

func TestACommandThatFailsSaysSo(t *testing.T) {
	s := newSpans(t, 0)
	span, _ := s.Begin(t.Context(), Limiter(0), &clientv1.Submit{}, "c", 4)
	span.End(&conversationv1.Outcome{Error: &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}})
	s.requireEnded(2)
	require.Equal(t, "forbidden", s.one(spanReceive).Status().Description)

	s = newSpans(t, 0)
	span, _ = s.Begin(t.Context(), Limiter(0), &clientv1.Submit{}, "c", 4)
	span.Abandon(errors.New("busy"))
	s.requireEnded(2)
	require.Equal(t, "busy", s.one(spanReceive).Status().Description)
	require.Equal(t, "busy", s.one(spanPublish).Status().Description)
}

// A sampled trace of a client is continued, as often as the rates of its user and of the gateway allow. Other commands
// begin a new trace, linked to the client's.
func TestWhoseTraceACommandGoesOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		parent        string
		user, gateway float64
		continued     bool
		linked        bool
	}{
		"sampled":            {sampledParent, 1, 1, true, false},
		"not sampled":        {unsampledParent, 1, 1, false, false},
		"none":               {"", 1, 1, false, false},
		"nonsense":           {"x", 1, 1, false, false},
		"the user's rate":    {sampledParent, 0, 1, false, true},
		"the gateway's rate": {sampledParent, 1, 0, false, true},
		"neither allows it":  {sampledParent, 0, 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpans(t, c.gateway)
			span, _ := s.Begin(t.Context(), Limiter(c.user), &clientv1.Submit{Traceparent: c.parent}, "c", 4)
			span.End(&conversationv1.Outcome{})
			receive := s.one(spanReceive)
			require.Equal(t, c.continued, receive.SpanContext().TraceID().String() == clientTrace)
			require.Equal(t, c.continued, receive.Parent().IsValid())
			require.Len(t, receive.Links(), map[bool]int{true: 1, false: 0}[c.linked])
		})
	}
	s := newSpans(t, 2)
	limiter, continued := Limiter(1), 0
	for range 5 {
		span, _ := s.Begin(t.Context(), limiter, &clientv1.Submit{Traceparent: sampledParent}, "c", 4)
		span.End(&conversationv1.Outcome{})
	}
	for _, span := range s.recorded.Ended() {
		if span.Name() == spanReceive && span.Parent().IsValid() {
			continued++
		}
	}
	require.Equal(t, 1, continued)
}

// A command that is not sampled has no header, and its spans are nil.
func TestACommandThatIsNotSampled(t *testing.T) {
	for name, s := range map[string]*Tracer{
		"off":     NewTracer(nil, 9),
		"noop":    NewTracer(noop.NewTracerProvider(), 9),
		"sampler": newSpans(t, 9, sdktrace.WithSampler(sdktrace.NeverSample())).Tracer,
	} {
		t.Run(name, func(t *testing.T) {
			span, header := s.Begin(t.Context(), Limiter(9), &clientv1.Submit{}, "c", 4)
			require.Nil(t, header)
			require.Empty(t, span.Parent)
			span.Accepted()
			span.End(&conversationv1.Outcome{})
			span.Abandon(errors.New("x"))
			require.Equal(t, name == "sampler", s.On())
		})
	}
}

// Each sampled event of a live message has its own trace, below the worker's span.
func TestFanOutOfSampledEvents(t *testing.T) {
	events := []*conversationv1.Event{{ConversationId: "c", Seq: 1}, {ConversationId: "c", Seq: 2}, {ConversationId: "c", Seq: 3}}
	s := newSpans(t, 0)
	require.Nil(t, s.FanOut(t.Context(), &brokerv1.Live{Events: events}))
	require.Nil(t, s.FanOut(t.Context(), &brokerv1.Live{Events: events, Traceparents: []string{"", ""}}))
	traces := s.FanOut(t.Context(), &brokerv1.Live{Events: events, Traceparents: []string{"", sampledParent}}) // the third event has none
	require.Len(t, traces, 3)
	require.Nil(t, traces[0])
	require.Nil(t, traces[2])
	require.Contains(t, traces[1].Parent, clientTrace)
	traces[1].End(5)
	traces[1].End(6)
	span := s.one(spanFanOut)
	require.Equal(t, int64(5), attributeOf(span, attrConnections).AsInt64(), "the first end counts")
	require.Equal(t, int64(2), attributeOf(span, attrSeq).AsInt64())
	s.requireEnded(1)

	never := newSpans(t, 0, sdktrace.WithSampler(sdktrace.NeverSample()))
	require.Nil(t, never.FanOut(t.Context(), &brokerv1.Live{Events: events[:1], Traceparents: []string{sampledParent}}))
	require.Nil(t, NewTracer(nil, 0).FanOut(t.Context(), &brokerv1.Live{Events: events[:1], Traceparents: []string{sampledParent}}))
}

func TestALimiterHasABurstOfASecond(t *testing.T) {
	require.False(t, Limiter(0).Allow())
	require.Equal(t, 1, Limiter(0.1).Burst(), "a rate below one per second still allows one")
	require.Equal(t, 3, Limiter(2.5).Burst())
}
