package flight

import (
	"context"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Names of spans and attributes; the names of the messaging conventions are in package telemetry.
//
//	in the sender's trace   apply ─┬─▶ append ──▶ the store, when no other command of the batch is sampled
//	                          ┆    └─▶ publish ─▶ the receivers' gateways
//	linked with each apply  batch ──────────────▶ the store, when several are
const (
	ScopeName   = "github.com/runnelhq/runnel/services/delivery"
	SpanApply   = "runnel.delivery.apply"
	SpanAppend  = "runnel.delivery.append"
	SpanPublish = "runnel.delivery.publish"
	SpanBatch   = "runnel.delivery.batch"

	attrBatchSize    = attribute.Key("messaging.batch.message_count")
	attrPartition    = attribute.Key("runnel.partition")
	attrConversation = attribute.Key("runnel.conversation.id")
	attrCommand      = attribute.Key("runnel.command.id")
	attrSeq          = attribute.Key("runnel.seq")
	attrSequence     = attribute.Key("runnel.stream.sequence")
)

// MaxTraced limits the commands of one batch that get spans of their own. The worker passes on the traces of further commands
// without adding spans.
const MaxTraced = 32

// BatchTrace is the trace of one batch. Each sampled command has a span in its sender's trace. One more span covers the
// batch and is linked to each of these spans. BatchTrace is nil if no command of the batch is sampled; all methods then
// do nothing.
type BatchTrace struct {
	tracer   trace.Tracer
	span     trace.Span
	commands map[int]*commandTrace // by index of the entry
}

// commandTrace is the trace of one sampled command in its batch.
type commandTrace struct {
	apply     trace.Span
	publish   trace.Span // nil until the result of the command is known
	published string     // traceparent of the publish span, which receivers continue
}

// TraceBatch begins the trace of a batch. If no entry is sampled, it costs only a check of each entry. The caller must
// end the trace.
func TraceBatch(ctx context.Context, tracer trace.Tracer, partition ids.Partition, stream string, entries []source.Message) (context.Context, *BatchTrace) {
	var commands map[int]*commandTrace
	var links []trace.Link
	var first trace.Span
	for i := range entries {
		if entries[i].Traceparent == "" || len(links) == MaxTraced {
			continue
		}
		remote := telemetry.WithTraceparent(ctx, entries[i].Traceparent)
		if !trace.SpanContextFromContext(remote).IsSampled() {
			continue
		}
		_, apply := tracer.Start(remote, SpanApply, trace.WithSpanKind(trace.SpanKindConsumer), telemetry.Process(stream), trace.WithAttributes(
			attrPartition.Int(int(partition)), attrSequence.Int64(int64(entries[i].Sequence)),
			attrConversation.String(entries[i].Command.GetConversationId()), attrCommand.String(entries[i].Command.GetCommandId()),
		))
		if !apply.IsRecording() {
			return ctx, nil // this worker creates no spans, but passes the senders' traces on
		}
		if first == nil {
			first, commands = apply, map[int]*commandTrace{}
		}
		commands[i] = &commandTrace{apply: apply}
		links = append(links, trace.Link{SpanContext: apply.SpanContext()})
	}
	if first == nil {
		return ctx, nil
	}
	// The batch span is in the first command's trace. A trace of its own would be sampled at random, even though its
	// commands are sampled.
	ctx, span := tracer.Start(trace.ContextWithSpan(ctx, first), SpanBatch, trace.WithLinks(links...), telemetry.Process(stream), trace.WithAttributes(
		attrPartition.Int(int(partition)), attrBatchSize.Int(len(entries)),
	))
	for _, command := range commands {
		command.apply.AddLink(trace.Link{SpanContext: span.SpanContext()})
	}
	return ctx, &BatchTrace{tracer: tracer, span: span, commands: commands}
}

// Appending begins the spans of one append. The returned context is for the call of the store: it contains the span of
// the only sampled command, or the span of the batch if several commands are sampled. The returned function ends the
// spans.
func (t *BatchTrace) Appending(ctx context.Context) (context.Context, func(error)) {
	if t == nil {
		return ctx, func(error) {}
	}
	spans := make([]trace.Span, 0, len(t.commands))
	for _, command := range t.commands {
		_, span := t.tracer.Start(trace.ContextWithSpan(ctx, command.apply), SpanAppend)
		spans = append(spans, span)
	}
	if len(spans) == 1 {
		ctx = trace.ContextWithSpan(ctx, spans[0])
	}
	return ctx, func(err error) {
		for _, span := range spans {
			if err != nil {
				span.SetStatus(codes.Error, "the store did not accept the append")
			}
			span.End()
		}
	}
}

// TraceResult is the result of a command for its trace: the seq of its event, or the code of its failure.
type TraceResult struct {
	Seq     ids.Seq
	Failure string
}

// Publishing begins the spans of publishing, and records the results of the commands. resultOf returns the result of the
// command at an index. End ends the spans.
func (t *BatchTrace) Publishing(entries []source.Message, resultOf func(i int) TraceResult) {
	if t == nil {
		return
	}
	for i, command := range t.commands {
		inside, span := t.tracer.Start(trace.ContextWithSpan(context.Background(), command.apply), SpanPublish,
			trace.WithSpanKind(trace.SpanKindProducer), telemetry.Send(broker.LiveSubject(ids.Conversation(entries[i].Command.GetConversationId()))))
		command.publish, command.published = span, telemetry.Traceparent(inside)
		if result := resultOf(i); result.Failure == "" {
			command.apply.SetAttributes(attrSeq.Int64(int64(result.Seq)))
		} else {
			command.apply.SetStatus(codes.Error, result.Failure)
		}
	}
}

// TraceparentOf returns the trace context for the results of the command at index i; empty if the command is not sampled.
func (t *BatchTrace) TraceparentOf(i int, e *source.Message) string {
	if t != nil {
		if command := t.commands[i]; command != nil {
			return command.published
		}
	}
	return e.Traceparent
}

// Traceparents returns the trace contexts of a plan's events; nil if none is sampled.
func (t *BatchTrace) Traceparents(entries []source.Message, causes []int) []string {
	var all []string
	for i, cause := range causes {
		if traceparent := t.TraceparentOf(cause, &entries[cause]); traceparent != "" {
			if all == nil {
				all = make([]string, len(causes))
			}
			all[i] = traceparent
		}
	}
	return all
}

// Header returns the header for a message with outcomes of the batch. It contains the trace of the only sampled command,
// or the trace of the batch if several are sampled. It is nil if no command is sampled.
func (t *BatchTrace) Header() nats.Header {
	if t == nil {
		return nil
	}
	span := t.span
	if len(t.commands) == 1 {
		for _, only := range t.commands {
			span = only.publish
		}
	}
	return telemetry.InjectHeader(trace.ContextWithSpan(context.Background(), span), nil)
}

// End ends all spans of the batch.
func (t *BatchTrace) End() {
	if t == nil {
		return
	}
	for _, command := range t.commands {
		if command.publish != nil {
			command.publish.End()
		}
		command.apply.End()
	}
	t.span.End()
}
