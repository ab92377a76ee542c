package client

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/client/internal/tracing"
	"github.com/runnelhq/runnel/pkg/errcode"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Names of spans and attributes. A command has one span from the outbox to its outcome, however often it was sent; an event
// that belongs to a recorded trace has one from its arrival until the application took it and the acknowledgement is queued.
const (
	scopeName   = "github.com/runnelhq/runnel/pkg/client"
	spanSend    = "runnel.client.send"
	spanReceive = "runnel.client.receive"

	attrConversation = attribute.Key("runnel.conversation.id")
	attrCommand      = attribute.Key("runnel.command.id")
	attrSeq          = attribute.Key("runnel.seq")
)

// Traceparent is the W3C trace context of the event that OnEvent was called for, to go on with its trace elsewhere; empty when
// the event belongs to none. The context is the one that OnEvent got.
func Traceparent(ctx context.Context) string { return tracing.Traceparent(ctx) }

// TraceID is the trace of the event that OnEvent was called for, as 32 hex digits; empty when the event belongs to none. The
// context is the one that OnEvent got.
func TraceID(ctx context.Context) string { return tracing.ID(trace.SpanContextFromContext(ctx)) }

// beginSend starts the span of a command; its parent is the span in ctx, if there is one.
func (t *Ticket) beginSend(ctx context.Context, tracer trace.Tracer) {
	if tracer == nil {
		return
	}
	ctx, t.span = tracer.Start(ctx, spanSend, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes( //nolint:spancheck // endSend ends it
		attrConversation.String(t.ConversationID), attrCommand.String(t.CommandID),
	))
	// One that is not recorded is told, too: then the servers do not record it either.
	t.parent = tracing.Traceparent(ctx)
	if t.span.SpanContext().IsSampled() {
		t.traceID = tracing.ID(t.span.SpanContext())
	}
}

// happened notes in the span of a command what became of it meanwhile.
func (t *Ticket) happened(what string) {
	if t.span != nil {
		t.span.AddEvent(what)
	}
}

// endSend ends the span of a command. The answer may name another trace than the client's own: a gateway need not let clients
// choose what is recorded.
func (t *Ticket) endSend(answered string, outcome *conversationv1.Outcome, err error) {
	if id := tracing.ID(tracing.Parse(answered)); id != "" {
		t.traceID = id
	}
	if t.span == nil {
		return
	}
	if err != nil {
		t.span.SetStatus(codes.Error, reasonOf(err))
	} else {
		t.span.SetAttributes(attrSeq.Int64(int64(outcome.GetSeq())), attrConversation.String(outcome.GetConversationId()))
	}
	t.span.End()
}

// reasonOf keeps what a server says to a person out of traces.
func reasonOf(err error) string {
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		return errcode.Name(refusal.Code)
	}
	return err.Error()
}

// beginReceive puts the trace of an event into the context for the application, and starts the span that covers it; nil for
// none. It begins when the event arrived, not now.
func (cb *callbacks) beginReceive(ctx context.Context, n *notice) (context.Context, trace.Span) {
	if n.origin == nil {
		return ctx, nil
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, n.origin.Parent)
	if cb.tracer == nil {
		return ctx, nil
	}
	return cb.tracer.Start(ctx, spanReceive, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(n.origin.At), trace.WithAttributes( //nolint:spancheck // tell ends it
		attrConversation.String(n.conv.ID()), attrSeq.Int64(int64(n.event.GetSeq())),
	))
}
