package flight

import (
	"context"
	"math"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/time/rate"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Names of spans and attributes; the names of the messaging conventions are in package telemetry. None of them contains a
// user id.
//
//	runnel.gateway.receive          a command, from its frame to its outcome
//	└─ runnel.gateway.publish       until the broker holds it; the delivery worker's spans are its children
//	   ┊
//	   └─ runnel.gateway.fan_out    on each gateway with members: from the live message to the queues
//	      └─ runnel.gateway.write   to one connection: from its queue to the socket
//	         └─ runnel.gateway.acknowledge   until the client acknowledged it
const (
	scopeName       = "github.com/runnelhq/runnel/services/gateway"
	spanReceive     = "runnel.gateway.receive"
	spanPublish     = "runnel.gateway.publish"
	spanFanOut      = "runnel.gateway.fan_out"
	spanWrite       = "runnel.gateway.write"
	spanAcknowledge = "runnel.gateway.acknowledge"

	attrConversation = attribute.Key("runnel.conversation.id")
	attrSeq          = attribute.Key("runnel.seq")
	attrCommand      = attribute.Key("runnel.command.id")
	attrConnection   = attribute.Key("runnel.connection.id")
	attrConnections  = attribute.Key("runnel.connections")
)

// Tracer creates the gateway's spans. Without a provider nothing is recorded and nothing is allocated.
//
// A command continues the trace of the client's own span, so that a send is one trace from the client to each receiver. But the
// client does not decide how much is recorded: a client's sampled span counts only within the rates of its user and of the
// gateway. Above these rates, or if the client did not sample its span, the gateway begins a trace of its own, sampled by its own
// ratio and linked to the client's.
type Tracer struct {
	tracer  trace.Tracer
	on      bool
	clients *rate.Limiter // limits the client traces that are continued here; each user has a limiter as well
	// following limits the deliveries that are followed at once.
	following chan struct{}
}

// NewTracer makes a tracer that continues at most clientRate client traces per second. A nil provider creates no spans.
func NewTracer(provider trace.TracerProvider, clientRate float64) *Tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	_, silent := provider.(noop.TracerProvider)
	return &Tracer{
		tracer: provider.Tracer(scopeName), on: !silent,
		clients: Limiter(clientRate), following: make(chan struct{}, maxFollowed),
	}
}

// SubmitSpan covers a command from its frame to its outcome.
type SubmitSpan struct {
	receive, publish trace.Span // nil when the command is not sampled
	// Parent is the traceparent for the client; empty when the command is not sampled.
	Parent string
}

// Begin starts the spans of a command and returns the header that carries their context to the delivery worker. continued
// limits how many traces of the user's clients the gateway continues.
func (t *Tracer) Begin(ctx context.Context, continued *rate.Limiter, s *clientv1.Submit, conversationID ids.Conversation, partitions int) (SubmitSpan, nats.Header) {
	if !t.on {
		return SubmitSpan{}, nil
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		attrConversation.String(string(conversationID)), attrCommand.String(s.GetCommandId()),
	)}
	client := telemetry.WithTraceparent(ctx, s.GetTraceparent())
	switch remote := trace.SpanContextFromContext(client); {
	case !remote.IsSampled():
	case continued.Allow() && t.clients.Allow():
		ctx = client
	default:
		options = append(options, trace.WithLinks(trace.Link{SpanContext: remote}))
	}
	ctx, receive := t.tracer.Start(ctx, spanReceive, options...)
	if !receive.SpanContext().IsSampled() {
		receive.End()
		return SubmitSpan{}, nil
	}
	span := SubmitSpan{receive: receive, Parent: telemetry.Traceparent(ctx)}
	subject := broker.CommandSubject(conversation.Partition(conversationID, partitions))
	ctx, span.publish = t.tracer.Start(ctx, spanPublish, trace.WithSpanKind(trace.SpanKindProducer), telemetry.Send(subject)) //nolint:spancheck // ended by accepted or end
	return span, telemetry.InjectHeader(ctx, nil)
}

// Accepted ends the span of publishing; the outcome may have arrived earlier.
func (s SubmitSpan) Accepted() {
	if s.publish != nil {
		s.publish.End()
	}
}

// Abandon ends the spans of a command that could not be published.
func (s SubmitSpan) Abandon(err error) {
	if s.receive == nil {
		return
	}
	s.publish.SetStatus(codes.Error, err.Error())
	s.publish.End()
	s.receive.SetStatus(codes.Error, err.Error())
	s.receive.End()
}

// End ends the spans of a command with its outcome.
func (s SubmitSpan) End(outcome *conversationv1.Outcome) {
	if s.receive == nil {
		return
	}
	if e := outcome.GetError(); e != nil {
		s.receive.SetStatus(codes.Error, errcode.Name(e.GetCode()))
	} else {
		s.receive.SetAttributes(attrSeq.Int64(int64(outcome.GetSeq())))
	}
	s.publish.End()
	s.receive.End()
}

// EventTrace is the trace of one sampled event on this gateway. The owner must guard it.
type EventTrace struct {
	Parent string // the context of fan_out: the parent of the receivers' spans
	fanOut trace.SpanContext
	span   trace.Span // fan_out itself; nil once it has ended
	writes int        // number of connections that are followed
}

// FanOut begins a span for each sampled event of a live message. The result has one element for each event, or is nil.
func (t *Tracer) FanOut(ctx context.Context, live *brokerv1.Live) []*EventTrace {
	if !t.on || len(live.GetTraceparents()) == 0 {
		return nil
	}
	var traces []*EventTrace
	for i, event := range live.GetEvents() {
		if i >= len(live.GetTraceparents()) || live.GetTraceparents()[i] == "" {
			continue
		}
		inside, span := t.tracer.Start(telemetry.WithTraceparent(ctx, live.GetTraceparents()[i]), spanFanOut,
			trace.WithSpanKind(trace.SpanKindConsumer), telemetry.Process(broker.LiveSubject(ids.Conversation(event.GetConversationId()))),
			trace.WithAttributes(attrConversation.String(event.GetConversationId()), attrSeq.Int64(int64(event.GetSeq()))))
		if !span.SpanContext().IsSampled() {
			span.End()
			continue
		}
		if traces == nil {
			traces = make([]*EventTrace, len(live.GetEvents()))
		}
		traces[i] = &EventTrace{Parent: telemetry.Traceparent(inside), fanOut: span.SpanContext(), span: span}
	}
	return traces
}

// End ends the fan-out of an event.
func (e *EventTrace) End(connections int) {
	if e.span != nil {
		e.span.SetAttributes(attrConnections.Int(connections))
		e.span.End()
		e.span = nil
	}
}

// On reports whether spans are recorded.
func (t *Tracer) On() bool { return t.on }

// Limiter returns a limiter of perSecond calls per second, with a burst of the same number; 0 allows no calls.
func Limiter(perSecond float64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(perSecond), int(math.Ceil(perSecond)))
}
