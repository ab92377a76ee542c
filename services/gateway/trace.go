package gateway

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// tracer makes the gateway's spans. Without a provider nothing is recorded and nothing is allocated.
type tracer struct {
	tracer trace.Tracer
	on     bool
}

func newTracer(provider trace.TracerProvider) tracer {
	if provider == nil {
		provider = noop.NewTracerProvider()
	}
	_, silent := provider.(noop.TracerProvider)
	return tracer{tracer: provider.Tracer("github.com/runnelhq/runnel/services/gateway"), on: !silent}
}

// submitSpan covers a command from its frame to its outcome.
type submitSpan struct{ span trace.Span }

// begin starts the span of a command and gives the header that carries its context to the delivery worker.
func (t tracer) begin(ctx context.Context, conversationID string, partitions int) (submitSpan, nats.Header) {
	if !t.on {
		return submitSpan{}, nil
	}
	subject := broker.CommandSubject(conversation.Partition(conversationID, partitions))
	ctx, span := t.tracer.Start(ctx, "runnel.gateway.submit", //nolint:spancheck // ended with the outcome, by submitSpan.end
		trace.WithSpanKind(trace.SpanKindProducer),
		telemetry.Send(subject), trace.WithAttributes(attribute.String("runnel.conversation_id", conversationID)))
	return submitSpan{span}, telemetry.InjectHeader(ctx, nil) //nolint:spancheck // as above
}

func (s submitSpan) accepted() {
	if s.span != nil {
		s.span.AddEvent("accepted")
	}
}

// abandon ends the span of a command that did not get on its way.
func (s submitSpan) abandon(err error) {
	if s.span != nil {
		s.span.SetStatus(codes.Error, err.Error())
		s.span.End()
	}
}

func (s submitSpan) end(outcome *conversationv1.Outcome) {
	if s.span == nil {
		return
	}
	if e := outcome.GetError(); e != nil {
		s.span.SetStatus(codes.Error, errcode.Name(e.GetCode()))
	} else {
		s.span.SetAttributes(attribute.Int64("runnel.seq", int64(outcome.GetSeq())))
	}
	s.span.End()
}

// fanOutSpans are the spans of one live message, one for each sampled event in it.
type fanOutSpans []trace.Span

func (t tracer) fanOut(ctx context.Context, live *brokerv1.Live) fanOutSpans {
	if !t.on || len(live.GetTraceparents()) == 0 {
		return nil
	}
	var spans fanOutSpans
	for i, parent := range live.GetTraceparents() {
		if parent == "" || i >= len(live.GetEvents()) {
			continue
		}
		event := live.GetEvents()[i]
		_, span := t.tracer.Start(telemetry.WithTraceparent(ctx, parent), "runnel.gateway.fan_out", trace.WithSpanKind(trace.SpanKindConsumer),
			telemetry.Process(broker.LiveSubject(event.GetConversationId())), trace.WithAttributes(
				attribute.String("runnel.conversation_id", event.GetConversationId()),
				attribute.Int64("runnel.seq", int64(event.GetSeq())),
			))
		spans = append(spans, span)
	}
	return spans
}

func (s fanOutSpans) end() {
	for _, span := range s {
		span.End()
	}
}
