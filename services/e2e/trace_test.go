package e2e_test

import (
	"context"
	"encoding/hex"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/standalone"
)

// spanCollector is a real OTLP receiver that keeps spans by name.
type spanCollector struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans map[string][]*otlp.Span
}

func (c *spanCollector) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range request.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[span.GetName()] = append(c.spans[span.GetName()], span)
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// TestOneTraceShowsTheWayOfAMessage follows a message from its frame to the receivers' gateways, over real OTLP.
func TestOneTraceShowsTheWayOfAMessage(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, spans := grpc.NewServer(), &spanCollector{spans: map[string][]*otlp.Span{}}
	collector.RegisterTraceServiceServer(server, spans)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	s := start(t, func(cfg *standalone.Config) {
		cfg.Telemetry = telemetry.Config{OTLPEndpoint: listener.Addr().String(), SampleRatio: 1}
	})
	ann, bob := s.login("ann", frame.JSON), s.login("bob", frame.Proto)
	id := ann.ask(submit("", direct("bob"))).GetOutcome().GetConversationId()
	bob.event(1)
	require.Equal(t, uint64(2), ann.ask(submit(id, text("traced"))).GetOutcome().GetSeq())
	bob.event(2)
	s.stop()
	require.NoError(t, s.tel.Shutdown(context.WithoutCancel(t.Context()))) // exports what is left

	spans.mu.Lock()
	defer spans.mu.Unlock()
	var trace string
	for _, submitted := range spans.spans["runnel.gateway.submit"] {
		for _, attribute := range submitted.GetAttributes() {
			if attribute.GetKey() == "runnel.seq" && attribute.GetValue().GetIntValue() == 2 {
				trace = hex.EncodeToString(submitted.GetTraceId())
			}
		}
	}
	require.NotEmpty(t, trace)
	in := func(name string) (n int) {
		for _, span := range spans.spans[name] {
			if hex.EncodeToString(span.GetTraceId()) == trace {
				n++
			}
		}
		return n
	}
	require.Equal(t, 1, in("runnel.delivery.command"), "the command carried the trace through the stream")
	require.Equal(t, 1, in("runnel.gateway.fan_out"), "the event carried it to the gateway")
	linked := false
	for _, span := range spans.spans["runnel.delivery.apply"] {
		for _, link := range span.GetLinks() {
			linked = linked || hex.EncodeToString(link.GetTraceId()) == trace
		}
	}
	require.True(t, linked, "the batch is linked to its commands")
	require.NotEmpty(t, spans.spans["runnel.history.v1.HistoryService/Append"], "the batch's trace goes on into the store")
}
