// Package tracing reads and writes the W3C trace context that frames carry.
package tracing

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Origin is the trace that a received event belongs to.
type Origin struct {
	Parent trace.SpanContext
	// At is when the event was received.
	At time.Time
}

// OriginOf is the origin that a traceparent names; nil for none.
func OriginOf(traceparent string, at time.Time) *Origin {
	if parent := Parse(traceparent); parent.IsValid() {
		return &Origin{Parent: parent, At: at}
	}
	return nil
}

// ID is the id of a trace as 32 hex digits; empty for none.
func ID(of trace.SpanContext) string {
	if !of.HasTraceID() {
		return ""
	}
	return of.TraceID().String()
}

// Traceparent is the trace context of ctx; empty for none.
func Traceparent(ctx context.Context) string {
	var h header
	propagation.TraceContext{}.Inject(ctx, &h)
	return string(h)
}

// Parse reads a traceparent. The result is invalid for any other text: a client ignores values that it cannot parse.
func Parse(traceparent string) trace.SpanContext {
	if traceparent == "" {
		return trace.SpanContext{}
	}
	h := header(traceparent)
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), &h))
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
