package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceparentKey is spelled as W3C does. NATS headers, unlike those of HTTP, tell upper from lower case.
const traceparentKey = "traceparent"

// InjectHeader puts the trace of ctx into the headers of a NATS message, making the map if there is none, and gives them
// back:
//
//	msg.Header = telemetry.InjectHeader(ctx, msg.Header)
//
// A trace that is not recorded is left out, which keeps the stored messages small: a missing header means "not recorded",
// so a consumer without one continues no trace, and should not begin one of its own.
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

// ExtractHeader continues the trace in the headers of a NATS message. Without one, or with one that is malformed, it gives
// ctx back.
func ExtractHeader(ctx context.Context, header map[string][]string) context.Context {
	values := header[traceparentKey]
	if len(values) == 0 {
		return ctx
	}
	return WithTraceparent(ctx, values[0])
}

// Traceparent is the W3C form of the trace in ctx; empty when there is none that is recorded.
func Traceparent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	var value carrier
	propagation.TraceContext{}.Inject(ctx, &value)
	return string(value)
}

// WithTraceparent continues the trace that Traceparent wrote. An empty or malformed one changes nothing.
func WithTraceparent(ctx context.Context, parent string) context.Context {
	if parent == "" {
		return ctx
	}
	value := carrier(parent)
	return propagation.TraceContext{}.Extract(ctx, &value)
}

// Link refers a span to another trace, as a batch does to each of the commands in it. It reports whether there is one.
func Link(parent string) (trace.Link, bool) {
	link := trace.LinkFromContext(WithTraceparent(context.Background(), parent))
	return link, link.SpanContext.IsValid()
}

// carrier holds one traceparent.
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

// Process describes a span that handles what came from a stream or subject.
func Process(source string) trace.SpanStartEventOption { return messaging("process", source) }

// messaging holds the attribute names in one place: the conventions for messaging may still change.
func messaging(operation, destination string) trace.SpanStartEventOption {
	return trace.WithAttributes(
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.destination.name", destination),
	)
}
