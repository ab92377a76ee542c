package delivery

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Names of spans and attributes. The messaging conventions of OpenTelemetry are not stable yet: change them only here.
const (
	scopeName   = "github.com/runnelhq/runnel/services/delivery"
	spanApply   = "runnel.delivery.apply"
	spanCommand = "runnel.delivery.command"

	attrSystem       = attribute.Key("messaging.system")
	attrOperation    = attribute.Key("messaging.operation.type")
	attrDestination  = attribute.Key("messaging.destination.name")
	attrBatchSize    = attribute.Key("messaging.batch.message_count")
	attrPartition    = attribute.Key("runnel.partition")
	attrConversation = attribute.Key("runnel.conversation.id")
	attrSequence     = attribute.Key("runnel.stream.sequence")

	headerTraceparent = "traceparent"
)

// traceparentOf finds the trace context of a message. HTTP-style carriers spell the key with a capital.
func traceparentOf(header nats.Header) string {
	if values := header[headerTraceparent]; len(values) > 0 {
		return values[0]
	}
	if values := header["Traceparent"]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// batchTrace is the trace of one batch: a span for the batch, linked to a span for each sampled command of it, which is
// part of its sender's trace. Nil when no command of the batch is sampled; all methods then do nothing.
type batchTrace struct {
	span        trace.Span
	traceparent string              // of span
	commands    map[int]commandSpan // by index of the entry
}

type commandSpan struct {
	span        trace.Span
	traceparent string
}

var propagator propagation.TraceContext

// traceBatch costs nothing but a look at each entry when none is sampled. The trace must be ended.
func traceBatch(ctx context.Context, tracer trace.Tracer, partition int, stream string, entries []entry) (context.Context, *batchTrace) {
	var commands map[int]commandSpan
	var links []trace.Link
	for i := range entries {
		if entries[i].traceparent == "" {
			continue
		}
		remote := propagator.Extract(ctx, propagation.MapCarrier{headerTraceparent: entries[i].traceparent})
		if !trace.SpanContextFromContext(remote).IsSampled() {
			continue
		}
		if commands == nil {
			commands = map[int]commandSpan{}
		}
		inside, span := tracer.Start(remote, spanCommand, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
			attrSystem.String("nats"), attrOperation.String("process"), attrDestination.String(stream),
			attrConversation.String(entries[i].command.GetConversationId()), attrSequence.Int64(int64(entries[i].sequence)),
		))
		commands[i] = commandSpan{span, traceparentFrom(inside)}
		links = append(links, trace.Link{SpanContext: span.SpanContext()})
	}
	if commands == nil {
		return ctx, nil
	}
	ctx, span := tracer.Start(ctx, spanApply, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), trace.WithAttributes( //nolint:spancheck // batchTrace.end ends it
		attrSystem.String("nats"), attrOperation.String("process"), attrDestination.String(stream),
		attrPartition.Int(partition), attrBatchSize.Int(len(entries)),
	))
	return ctx, &batchTrace{span: span, traceparent: traceparentFrom(ctx), commands: commands} //nolint:spancheck // as above
}

// traceparentFrom spells the trace context of ctx; empty when there is none.
func traceparentFrom(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagator.Inject(ctx, carrier)
	return carrier[headerTraceparent]
}

// headerOf is the message header that hands a trace context on; nil when there is none.
func headerOf(traceparent string) nats.Header {
	if traceparent == "" {
		return nil
	}
	return nats.Header{headerTraceparent: {traceparent}}
}

// header is the header for a message that carries outcomes of the batch; nil when nothing is sampled.
func (t *batchTrace) header() nats.Header {
	if t == nil {
		return nil
	}
	return headerOf(t.traceparent)
}

// traceparents gives the trace contexts of events by the entries they came of; nil when none is sampled.
func (t *batchTrace) traceparents(causes []int) []string {
	if t == nil {
		return nil
	}
	all := make([]string, len(causes))
	for i, cause := range causes {
		all[i] = t.commands[cause].traceparent
	}
	return all
}

func (t *batchTrace) end() {
	if t == nil {
		return
	}
	for _, command := range t.commands {
		command.span.End()
	}
	t.span.End()
}
