package client

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/runnelhq/runnel/pkg/errcode"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
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
func Traceparent(ctx context.Context) string { return traceparent(ctx) }

// TraceID is the trace of the event that OnEvent was called for, as 32 hex digits; empty when the event belongs to none. The
// context is the one that OnEvent got.
func TraceID(ctx context.Context) string { return traceID(trace.SpanContextFromContext(ctx)) }

func traceID(of trace.SpanContext) string {
	if !of.HasTraceID() {
		return ""
	}
	return of.TraceID().String()
}

// beginSend starts the span of a command; its parent is the span in ctx, if there is one.
func (t *Ticket) beginSend(ctx context.Context, tracer trace.Tracer) {
	if tracer == nil {
		return
	}
	ctx, t.span = tracer.Start(ctx, spanSend, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes( //nolint:spancheck // endSend ends it
		attrConversation.String(t.ConversationID), attrCommand.String(t.CommandID),
	))
	// One that is not recorded is told, too: then the servers do not record it either.
	t.parent = traceparent(ctx)
	if t.span.SpanContext().IsSampled() {
		t.traceID = traceID(t.span.SpanContext())
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
	if id := traceID(parse(answered)); id != "" {
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

// arrival is an event as it came.
type arrival struct {
	event *clientv1.Event
	// origin is nil for an event that belongs to no trace, and for one that was read: pages carry none.
	origin *origin
}

// origin is the trace that an event belongs to.
type origin struct {
	parent trace.SpanContext
	at     time.Time
}

func arrived(f *clientv1.ServerFrame, at time.Time) arrival {
	a := arrival{event: f.GetEvent()}
	if f.GetTraceparent() != "" {
		if parent := parse(f.GetTraceparent()); parent.IsValid() {
			a.origin = &origin{parent: parent, at: at}
		}
	}
	return a
}

// beginReceive puts the trace of an event into the context for the application, and starts the span that covers it; nil for
// none. It begins when the event arrived, not now.
func (cb *callbacks) beginReceive(ctx context.Context, n *notice) (context.Context, trace.Span) {
	if n.origin == nil {
		return ctx, nil
	}
	ctx = trace.ContextWithRemoteSpanContext(ctx, n.origin.parent)
	if cb.tracer == nil {
		return ctx, nil
	}
	return cb.tracer.Start(ctx, spanReceive, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(n.origin.at), trace.WithAttributes( //nolint:spancheck // tell ends it
		attrConversation.String(n.conv.id), attrSeq.Int64(int64(n.event.GetSeq())),
	))
}

// header is the one header of W3C trace context that the protocol carries.
type header string

const headerName = "traceparent"

func (h *header) Get(key string) string {
	if key != headerName {
		return ""
	}
	return string(*h)
}

func (h *header) Set(key, value string) {
	if key == headerName {
		*h = header(value)
	}
}

func (*header) Keys() []string { return []string{headerName} }

func traceparent(ctx context.Context) string {
	var h header
	propagation.TraceContext{}.Inject(ctx, &h)
	return string(h)
}

// parse gives an invalid context for what is no traceparent: a client passes over what it does not understand.
func parse(text string) trace.SpanContext {
	if text == "" {
		return trace.SpanContext{}
	}
	h := header(text)
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), &h))
}
