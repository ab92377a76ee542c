package flight

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

const (
	sampledParent   = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
	unsampledParent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"
)

// spans records the spans of a tracer.
type spans struct {
	*Tracer

	t        *testing.T
	recorded *tracetest.SpanRecorder
}

func newSpans(t *testing.T, clientRate float64, options ...sdktrace.TracerProviderOption) *spans {
	t.Helper()
	recorded := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(append(options, sdktrace.WithSpanProcessor(recorded))...)
	return &spans{NewTracer(provider, clientRate), t, recorded}
}

// one returns the only ended span with a name.
func (s *spans) one(name string) sdktrace.ReadOnlySpan {
	s.t.Helper()
	var found []sdktrace.ReadOnlySpan
	for _, span := range s.recorded.Ended() {
		if span.Name() == name {
			found = append(found, span)
		}
	}
	require.Len(s.t, found, 1, name)
	return found[0]
}

// requireEnded requires that all spans have ended, and their number.
func (s *spans) requireEnded(n int) {
	s.t.Helper()
	require.Len(s.t, s.recorded.Started(), n)
	require.Len(s.t, s.recorded.Ended(), n)
}

// fanOut starts the trace of a sampled event.
func (s *spans) fanOut(seq uint64) *EventTrace {
	s.t.Helper()
	traces := s.FanOut(s.t.Context(), &brokerv1.Live{
		Events: []*conversationv1.Event{{ConversationId: "c", Seq: seq}}, Traceparents: []string{sampledParent},
	})
	require.Len(s.t, traces, 1)
	return traces[0]
}

func attributeOf(span sdktrace.ReadOnlySpan, key attribute.Key) attribute.Value {
	for _, a := range span.Attributes() {
		if a.Key == key {
			return a.Value
		}
	}
	return attribute.Value{}
}

// A delivery has one span until its event is written, and another until it is acknowledged; both are children of the
// event's span.
func TestADeliveryIsFollowedToItsAcknowledgement(t *testing.T) {
	for name, steps := range map[string][]func(*Delivery){
		"in order":                     {(*Delivery).Written, (*Delivery).Acknowledged},
		"acknowledged before it noted": {(*Delivery).Acknowledged, (*Delivery).Written},
		"each call twice":              {(*Delivery).Written, (*Delivery).Written, (*Delivery).Acknowledged, (*Delivery).Acknowledged, (*Delivery).Written},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpans(t, 0)
			e := s.fanOut(7)
			d := s.Follow(e, "c", 7, "k", time.Now())
			require.Len(t, s.following, 1)
			for i, step := range steps {
				if i < 2 {
					require.Len(t, s.following, 1, "it has not ended")
				}
				step(d)
			}
			require.Empty(t, s.following, "others may be followed")
			e.End(1)
			s.requireEnded(3)
			write, acknowledge, fanOut := s.one(spanWrite), s.one(spanAcknowledge), s.one(spanFanOut)
			require.Equal(t, fanOut.SpanContext().SpanID(), write.Parent().SpanID())
			require.Equal(t, write.SpanContext().SpanID(), acknowledge.Parent().SpanID())
			require.Equal(t, codes.Unset, write.Status().Code)
			require.Equal(t, codes.Unset, acknowledge.Status().Code)
			require.Equal(t, "k", attributeOf(write, attrConnection).AsString())
			require.Equal(t, int64(7), attributeOf(write, attrSeq).AsInt64())
			d.Abandon("too late")
			require.Equal(t, codes.Unset, s.one(spanAcknowledge).Status().Code)
		})
	}
}

// A delivery that does not complete records the reason on the span that was open.
func TestADeliveryIsAbandonedWithItsReason(t *testing.T) {
	for name, c := range map[string]struct {
		before []func(*Delivery)
		span   string
		status codes.Code
	}{
		"before it is written":               {nil, spanWrite, codes.Error},
		"before it is acknowledged":          {[]func(*Delivery){(*Delivery).Written}, spanAcknowledge, codes.Error},
		"acknowledged, not noted as written": {[]func(*Delivery){(*Delivery).Acknowledged}, spanWrite, codes.Unset},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSpans(t, 0)
			e := s.fanOut(7)
			d := s.Follow(e, "c", 7, "k", time.Now())
			for _, step := range c.before {
				step(d)
			}
			d.Abandon("the connection ended")
			require.Empty(t, s.following)
			d.Abandon("again")
			d.Acknowledged()
			d.Written()
			e.End(0)
			require.Len(t, s.recorded.Ended(), len(s.recorded.Started()))
			status := s.one(c.span).Status()
			require.Equal(t, c.status, status.Code)
			if c.status == codes.Error {
				require.Equal(t, "the connection ended", status.Description)
			}
		})
	}
}

// One event is followed to a few connections only, and a gateway follows a bounded number of deliveries at once.
func TestFollowingIsBounded(t *testing.T) {
	s := newSpans(t, 0)
	e, followed := s.fanOut(1), Followed{}
	for range maxFollowedPerEvent + 1 {
		if d := s.Follow(e, "c", 1, "k", time.Now()); d != nil {
			followed = append(followed, d)
		}
	}
	require.Len(t, followed, maxFollowedPerEvent)
	for seq := ids.Seq(2); len(followed) < maxFollowed; seq++ {
		e := s.fanOut(uint64(seq))
		for range maxFollowedPerEvent {
			followed = append(followed, s.Follow(e, "c", seq, "k", time.Now()))
		}
	}
	other := s.fanOut(1000)
	require.Nil(t, s.Follow(other, "c", 1000, "k", time.Now()))
	followed[0].Abandon("done")
	require.NotNil(t, s.Follow(other, "c", 1000, "k", time.Now()), "there is room again")
	require.Nil(t, s.Follow(nil, "c", 1, "k", time.Now()), "not sampled")
}

// The deliveries of a subscription end when they are acknowledged, when the subscription ends, or when they take too long.
func TestFollowedEndTogether(t *testing.T) {
	begun := time.Unix(1000, 0)
	follow := func(s *spans) (f Followed) {
		e := s.fanOut(1)
		for seq := range uint64(4) {
			d := s.Follow(e, "c", ids.Seq(seq+1), "k", begun.Add(time.Duration(seq)*time.Second))
			d.Written()
			f = append(f, d)
		}
		return f
	}
	left := func(f Followed) (seqs []uint64) {
		for _, d := range f {
			seqs = append(seqs, uint64(d.seq))
		}
		return seqs
	}

	s := newSpans(t, 0)
	f := follow(s)
	f.Acknowledge(0)
	require.Equal(t, []uint64{1, 2, 3, 4}, left(f))
	f.Acknowledge(2)
	require.Equal(t, []uint64{3, 4}, left(f))
	require.Len(t, s.following, 2)
	f.Acknowledge(9)
	require.Nil(t, f, "a subscription without deliveries allocates nothing")

	s = newSpans(t, 0)
	f = follow(s)
	f.AbandonBefore(begun, "too long")
	require.Len(t, f, 4)
	f.AbandonBefore(begun.Add(2*time.Second), "too long")
	require.Equal(t, []uint64{3, 4}, left(f))
	f.Abandon("ended")
	require.Nil(t, f)
	require.Empty(t, s.following)
	reasons := map[string]int{}
	for _, span := range s.recorded.Ended() {
		if span.Name() == spanAcknowledge {
			reasons[span.Status().Description]++
		}
	}
	require.Equal(t, map[string]int{"too long": 2, "ended": 2}, reasons)
	f.Acknowledge(1)
	f.Abandon("nothing")
	require.Nil(t, f)
}
