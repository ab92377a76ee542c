package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceparentKey is spelled as in W3C trace context. Unlike HTTP headers, NATS headers are case-sensitive.
const traceparentKey = "traceparent"

// InjectHeader puts the trace of ctx into the headers of a NATS message and returns the headers. If header is nil, it makes
// the map:
//
//	msg.Header = telemetry.InjectHeader(ctx, msg.Header)
//
// A trace that is not recorded is left out, which keeps stored messages small. A missing header means "not recorded",
// so a consumer that gets no header continues no trace, and should not begin a new one.
func InjectHeader(ctx context.Context, header map[string][]string) map[string][]string {
	parent := Traceparent(ctx)
	if parent == "" {
		return header
	}
	if header == nil {
		header = make(map[string][]string, 1)
	}
	header[traceparentKey] = []string{parent}
	return header
}

// ExtractHeader continues the trace in the headers of a NATS message. If the header is missing or malformed, it returns
// ctx unchanged.
func ExtractHeader(ctx context.Context, header map[string][]string) context.Context {
	values := header[traceparentKey]
	if len(values) == 0 {
		return ctx
	}
	return WithTraceparent(ctx, values[0])
}

// Traceparent returns the W3C form of the trace in ctx; empty if there is no recorded trace.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	var value carrier
	propagation.TraceContext{}.Inject(ctx, &value)
	return string(value)
}

// WithTraceparent continues the trace in a text that Traceparent returned. If the text is empty or malformed, it returns
// ctx unchanged.
func WithTraceparent(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	value := carrier(parent)
	return propagation.TraceContext{}.Extract(ctx, &value)
}

// Link makes a link from a span to another trace. For example, a batch links to the trace of each of its commands. It
// returns false if parent names no trace.
func Link(parent string) (trace.Link, bool) {
	link := trace.LinkFromContext(WithTraceparent(context.Background(), parent))
	return link, link.SpanContext.IsValid()
}

// carrier contains one traceparent.
type carrier string

func (c *carrier) Get(key string) string {
	if key == traceparentKey {
		return string(*c)
	}
	return ""
}

func (c *carrier) Set(key, value string) {
	if key == traceparentKey {
		*c = carrier(value)
	}
}

func (*carrier) Keys() []string { return []string{traceparentKey} }

// Send describes a span that publishes to a subject.
func Send(subject string) trace.SpanStartEventOption { return messaging("send", subject) }

// Process describes a span that handles a message from a stream or subject.
func Process(source string) trace.SpanStartEventOption { return messaging("process", source) }

// messaging makes the attributes of Send and Process. The attribute names are only here, because the messaging
// conventions may still change.
func messaging(operation, destination string) trace.SpanStartEventOption {
	return trace.WithAttributes(
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", destination),
	)
}
