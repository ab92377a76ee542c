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

// Names of spans and attributes. A command has one span from the outbox to its outcome, however often it was sent. An
// event of a recorded trace has one span from its arrival until the application has handled it and the acknowledgement is
// queued.
const (
	scopeName   = "github.com/runnelhq/runnel/pkg/client"
	spanSend    = "runnel.client.send"
	spanReceive = "runnel.client.receive"

	attrConversation = attribute.Key("runnel.conversation.id")
	attrCommand      = attribute.Key("runnel.command.id")
	attrSeq          = attribute.Key("runnel.seq")
)

// Traceparent is the W3C trace context of the event that OnEvent was called for, to continue its trace elsewhere; empty if the
// event belongs to no trace. Pass the context that OnEvent received.
func Traceparent(ctx context.Context) string { return tracing.Traceparent(ctx) }

// TraceID is the trace of the event that OnEvent was called for, as 32 hex digits; empty if the event belongs to no trace. Pass
// the context that OnEvent received.
func TraceID(ctx context.Context) string { return tracing.ID(trace.SpanContextFromContext(ctx)) }

// sendSpan is the span of one command, from the outbox to its outcome.
type sendSpan struct {
	// span is nil without a tracer.
	span trace.Span
	// parent is the traceparent that the gateway receives. traceID is the trace to look up; empty if there is none.
	parent, traceID string
}

// beginSend starts the span of a command as a child of the span in ctx, if there is one. Without a tracer it starts no
// span.
func beginSend(ctx context.Context, tracer trace.Tracer, conversationID, commandID string) (s sendSpan) {
	if tracer == nil {
		return s
	}
	ctx, s.span = tracer.Start(ctx, spanSend, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes( //nolint:spancheck // end ends it
		attrConversation.String(conversationID), attrCommand.String(commandID),
	))
	// The context of an unsampled span is also sent, so that the servers do not sample it either.
	s.parent = tracing.Traceparent(ctx)
	if s.span.SpanContext().IsSampled() {
		s.traceID = tracing.ID(s.span.SpanContext())
	}
	return s
}

// note adds an intermediate result of the command.
func (s *sendSpan) note(what string) {
	if s.span != nil {
		s.span.AddEvent(what)
	}
}

// end ends the span. answered is the trace in the gateway's answer. It may differ from the client's own trace: a gateway
// may decide itself what is recorded.
func (s *sendSpan) end(answered string, outcome *conversationv1.Outcome, err error) {
	if id := tracing.ID(tracing.Parse(answered)); id != "" {
		s.traceID = id
	}
	if s.span == nil {
		return
	}
	if err != nil {
		s.span.SetStatus(codes.Error, reasonOf(err))
	} else {
		s.span.SetAttributes(attrSeq.Int64(int64(outcome.GetSeq())), attrConversation.String(outcome.GetConversationId()))
	}
	s.span.End()
}

// reasonOf returns an error's reason without the server's message text, for traces.
func reasonOf(err error) string {
	if refusal, ok := errors.AsType[*RefusedError](err); ok {
		return errcode.Name(refusal.Code)
	}
	return err.Error()
}

// beginReceive puts the trace of an event into the context for the program, and starts the span of receiving it; nil if
// there is no trace. The span starts when the event was received, not now.
func beginReceive(ctx context.Context, tracer trace.Tracer, origin *tracing.Origin, event Event) (context.Context, trace.Span) {
	if origin == nil {
		return ctx, nil
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, origin.Parent)
	if tracer == nil {
		return ctx, nil
	}
	return tracer.Start(ctx, spanReceive, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(origin.At), trace.WithAttributes( //nolint:spancheck // tellEvent ends it
		attrConversation.String(event.GetConversationId()), attrSeq.Int64(int64(event.GetSeq())),
	))
}
