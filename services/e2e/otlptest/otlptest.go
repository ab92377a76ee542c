// Package otlptest is a collector of traces for tests: a real gRPC server of the OTLP trace service, to which any program can
// export, and functions for examining the received spans.
//
//	spans := otlptest.Start(t)
//	… run programs with --telemetry.otlp-endpoint=<spans.Endpoint()> …
//	trace := spans.Await(t, "the whole way", func(all otlptest.Spans) bool { return len(all.Named("last")) == 1 })
//	require.Empty(t, trace.Orphans(), trace.Tree())
//
// It keeps all received spans until the test ends. It never samples and never forwards.
package otlptest

import (
	"context"
	"encoding/hex"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// patience limits waits that take long only if there is a defect. No test uses it for measurements.
const patience = 30 * time.Second

// Collector receives spans.
type Collector struct {
	collectorv1.UnimplementedTraceServiceServer

	endpoint string

	mu      sync.Mutex
	spans   Spans
	arrived chan struct{} // closed and replaced when spans arrive
}

// Start makes a collector that runs until the test ends.
func Start(tb testing.TB) *Collector {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	c := &Collector{endpoint: listener.Addr().String(), arrived: make(chan struct{})}
	server := grpc.NewServer()
	collectorv1.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	tb.Cleanup(func() {
		server.Stop()
		require.NoError(tb, <-served)
	})
	return c
}

// Endpoint returns the collector's address, host:port.
func (c *Collector) Endpoint() string { return c.endpoint }

// Export implements the OTLP trace service.
func (c *Collector) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, group := range request.GetResourceSpans() {
		service, _ := attributes(group.GetResource().GetAttributes())["service.name"].(string)
		for _, scope := range group.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(service, span))
			}
		}
	}
	close(c.arrived)
	c.arrived = make(chan struct{})
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

// Spans returns all spans received so far.
func (c *Collector) Spans() Spans {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Await waits until a condition holds for the received spans, and returns them. If the condition does not hold in time,
// the test fails and prints the spans.
func (c *Collector) Await(tb testing.TB, what string, condition func(Spans) bool) Spans {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	for {
		c.mu.Lock()
		spans, arrived := slices.Clone(c.spans), c.arrived
		c.mu.Unlock()
		if condition(spans) {
			return spans
		}
		select {
		case <-arrived:
		case <-ctx.Done():
			require.FailNow(tb, "spans did not come: "+what, "what came:\n%s", spans.Tree())
		}
	}
}

func spanOf(service string, from *tracev1.Span) Span {
	span := Span{
		Service: service, Name: from.GetName(),
		TraceID: hex.EncodeToString(from.GetTraceId()), ID: hex.EncodeToString(from.GetSpanId()), Parent: hex.EncodeToString(from.GetParentSpanId()),
		Begin: time.Unix(0, int64(from.GetStartTimeUnixNano())), End: time.Unix(0, int64(from.GetEndTimeUnixNano())),
		Attributes: attributes(from.GetAttributes()),
	}
	for _, link := range from.GetLinks() {
		span.Links = append(span.Links, Link{TraceID: hex.EncodeToString(link.GetTraceId()), ID: hex.EncodeToString(link.GetSpanId())})
	}
	for _, event := range from.GetEvents() {
		span.Events = append(span.Events, event.GetName())
	}
	if from.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		span.Failure = "failed"
		if message := from.GetStatus().GetMessage(); message != "" {
			span.Failure = message
		}
	}
	return span
}

func attributes(from []*commonv1.KeyValue) map[string]any {
	all := make(map[string]any, len(from))
	for _, attribute := range from {
		switch value := attribute.GetValue().GetValue().(type) {
		case *commonv1.AnyValue_StringValue:
			all[attribute.GetKey()] = value.StringValue
		case *commonv1.AnyValue_IntValue:
			all[attribute.GetKey()] = value.IntValue
		case *commonv1.AnyValue_BoolValue:
			all[attribute.GetKey()] = value.BoolValue
		case *commonv1.AnyValue_DoubleValue:
			all[attribute.GetKey()] = value.DoubleValue
		}
	}
	return all
}
