package bench

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
)

// sink receives traces over OTLP and counts their spans, so that the cost of making and sending traces can be measured.
// Its own CPU time counts for the load generator, not for the servers.
type sink struct {
	collectorv1.UnimplementedTraceServiceServer

	server   *grpc.Server
	endpoint string
	served   chan error
	spans    atomic.Int64
}

func newSink() (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for traces: %w", err)
	}
	s := &sink{server: grpc.NewServer(), endpoint: listener.Addr().String(), served: make(chan error, 1)}
	collectorv1.RegisterTraceServiceServer(s.server, s)
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

// Export implements the OTLP trace service.
func (s *sink) Export(_ context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.spans.Add(int64(len(scope.GetSpans())))
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (s *sink) close() error {
	s.server.Stop()
	return <-s.served
}

// flags returns the flags that make a service send its traces to the sink.
func (s *sink) flags(ratio float64) []string {
	return []string{"--telemetry.otlp-endpoint=" + s.endpoint, fmt.Sprintf("--telemetry.sample-ratio=%g", ratio)}
}
