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
	// At is the time at which the event was received.
	At time.Time
}

// OriginOf returns the trace that a traceparent names; nil if it names none.
func OriginOf(traceparent string, at time.Time) *Origin {
	if parent := Parse(traceparent); parent.IsValid() {
		return &Origin{Parent: parent, At: at}
	}
	return nil
}

// ID returns the id of a trace as 32 hex digits; empty if there is no trace.
func ID(of trace.SpanContext) string {
	if !of.HasTraceID() {
		return ""
	}
	return of.TraceID().String()
}

// Traceparent returns the trace context of ctx as text; empty if there is none.
func Traceparent(ctx context.Context) string {
	var h header
	propagation.TraceContext{}.Inject(ctx, &h)
	return string(h)
}

// Parse reads a traceparent. For any other text the result is invalid: a client ignores values that it cannot parse.
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
