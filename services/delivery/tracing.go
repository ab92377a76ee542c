package delivery

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Names of spans and attributes; those of the messaging conventions are in telemetry.
const (
	scopeName   = "github.com/runnelhq/runnel/services/delivery"
	spanApply   = "runnel.delivery.apply"
	spanCommand = "runnel.delivery.command"

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

// traceBatch costs nothing but a look at each entry when none is sampled. The trace must be ended.
func traceBatch(ctx context.Context, tracer trace.Tracer, partition int, stream string, entries []entry) (context.Context, *batchTrace) {
	var commands map[int]commandSpan
	var links []trace.Link
	for i := range entries {
		if entries[i].traceparent == "" {
			continue
		}
		remote := telemetry.WithTraceparent(ctx, entries[i].traceparent)
		if !trace.SpanContextFromContext(remote).IsSampled() {
			continue
		}
		if commands == nil {
			commands = map[int]commandSpan{}
		}
		inside, span := tracer.Start(remote, spanCommand, trace.WithSpanKind(trace.SpanKindConsumer), telemetry.Process(stream), trace.WithAttributes(
			attrConversation.String(entries[i].command.GetConversationId()), attrSequence.Int64(int64(entries[i].sequence)),
		))
		commands[i] = commandSpan{span, telemetry.Traceparent(inside)}
		links = append(links, trace.Link{SpanContext: span.SpanContext()})
	}
	if commands == nil {
		return ctx, nil
	}
	ctx, span := tracer.Start(ctx, spanApply, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithLinks(links...), telemetry.Process(stream), trace.WithAttributes( //nolint:spancheck // batchTrace.end ends it
		attrPartition.Int(partition), attrBatchSize.Int(len(entries)),
	))
	return ctx, &batchTrace{span: span, traceparent: telemetry.Traceparent(ctx), commands: commands} //nolint:spancheck // as above
}

// header is the header for a message that carries outcomes of the batch; nil when nothing is sampled.
func (t *batchTrace) header() nats.Header {
	if t == nil || t.traceparent == "" {
		return nil
	}
	return nats.Header{headerTraceparent: {t.traceparent}}
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
