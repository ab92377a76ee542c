package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collectorServer is a real OTLP receiver.
type collectorServer struct {
	collector.UnimplementedTraceServiceServer
	spans chan string
}

func (c *collectorServer) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	for _, resource := range request.GetResourceSpans() {
		service := ""
		for _, attribute := range resource.GetResource().GetAttributes() {
			if attribute.GetKey() == "service.name" {
				service = attribute.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans <- service + "/" + span.GetName()
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// startCollector starts a collector. It returns the collector's address, and a channel with the names of received spans.
func startCollector(t *testing.T) (string, <-chan string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server, receiver := grpc.NewServer(), &collectorServer{spans: make(chan string, 100)}
	collector.RegisterTraceServiceServer(server, receiver)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		require.NoError(t, <-served)
	})
	return listener.Addr().String(), receiver.spans
}

func TestTracesReachTheCollector(t *testing.T) {
	for _, scheme := range []string{"", "http://"} {
		addr, spans := startCollector(t)
		tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{OTLPEndpoint: scheme + addr, SampleRatio: 1}, io.Discard)
		require.NoError(t, err)
		require.True(t, tel.Tracing())
		_, span := tel.Tracer("test").Start(t.Context(), "send")
		require.True(t, span.IsRecording())
		span.End()
		require.NoError(t, tel.Shutdown(t.Context()))
		require.NoError(t, tel.Shutdown(t.Context()), "a second one")
		require.Equal(t, "gateway/send", <-spans)
	}
}

func TestSamplingFollowsTheParent(t *testing.T) {
	addr, _ := startCollector(t)
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{OTLPEndpoint: addr, SampleRatio: 0}, io.Discard)
	require.NoError(t, err)
	defer func() { require.NoError(t, tel.Shutdown(t.Context())) }()

	_, root := tel.Tracer("test").Start(t.Context(), "root")
	require.False(t, root.IsRecording(), "a ratio of 0 begins nothing")
	parent := telemetry.WithTraceparent(t.Context(), sampled)
	_, child := tel.Tracer("test").Start(parent, "child")
	require.True(t, child.IsRecording(), "what was begun elsewhere goes on")
	child.End()
}

// An unavailable collector causes only one warning.
func TestCollectorAway(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr := listener.Addr().String()
	require.NoError(t, listener.Close())

	var log bytes.Buffer
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{OTLPEndpoint: addr, SampleRatio: 1}, &log)
	require.NoError(t, err)
	for range 10_000 { // more than the queue holds; the rest is dropped without waiting
		_, span := tel.Tracer("test").Start(t.Context(), "send")
		span.End()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, tel.Shutdown(ctx))
	require.LessOrEqual(t, bytes.Count(log.Bytes(), []byte("\n")), 1)
}

func TestOffCostsNextToNothing(t *testing.T) {
	var log bytes.Buffer
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{}, &log)
	require.NoError(t, err)
	require.False(t, tel.Tracing())
	tracer := tel.Tracer("test")
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		ctx, span := tracer.Start(t.Context(), "send")
		if telemetry.InjectHeader(ctx, nil) != nil {
			t.Error("a header without a trace")
		}
		span.End()
	}), 1.0, "the context that holds the span")
	require.NoError(t, tel.Shutdown(t.Context()))
	require.Empty(t, log.String())
}

func TestBadConfig(t *testing.T) {
	for want, cfg := range map[string]telemetry.Config{
		`log level "loud"`:         {LogLevel: "loud"},
		`log format "xml"`:         {LogFormat: "xml"},
		"neither host:port":        {OTLPEndpoint: "collector"},
		"not between 0 and 1":      {OTLPEndpoint: "collector:4317", SampleRatio: 2},
		`traces to "ftp://host:1"`: {OTLPEndpoint: "ftp://host:1"},
	} {
		_, err := telemetry.Start(t.Context(), "gateway", cfg, io.Discard)
		require.ErrorContains(t, err, want)
	}
}

func TestLog(t *testing.T) {
	var log bytes.Buffer
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{LogLevel: "warn", LogFormat: "json"}, &log)
	require.NoError(t, err)
	ctx := telemetry.WithTraceparent(t.Context(), sampled)
	tel.Log.InfoContext(ctx, "too small")
	tel.Log.With("partition", 3).WarnContext(ctx, "look")

	var line map[string]any
	require.NoError(t, json.Unmarshal(log.Bytes(), &line), log.String())
	require.Equal(t, "look", line["msg"])
	require.Equal(t, "gateway", line["service"])
	require.EqualValues(t, 3, line["partition"])
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", line["trace_id"])
	require.Equal(t, "00f067aa0ba902b7", line["span_id"])

	log.Reset()
	tel.Log.Warn("no span")
	require.NotContains(t, log.String(), "trace_id")
}

func TestRegistryHoldsProcessMetrics(t *testing.T) {
	tel, err := telemetry.Start(t.Context(), "gateway", telemetry.Config{}, io.Discard)
	require.NoError(t, err)
	families, err := tel.Registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, family := range families {
		names = append(names, family.GetName())
	}
	require.Subset(t, names, []string{"go_goroutines", "process_resident_memory_bytes", "go_build_info"})
}

const sampled = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestHeaders(t *testing.T) {
	ctx := telemetry.WithTraceparent(t.Context(), sampled)
	header := telemetry.InjectHeader(ctx, map[string][]string{"Nats-Msg-Id": {"x"}})
	require.Equal(t, map[string][]string{"Nats-Msg-Id": {"x"}, "traceparent": {sampled}}, header)
	require.Equal(t, map[string][]string{"traceparent": {sampled}}, telemetry.InjectHeader(ctx, nil))

	there := trace.SpanContextFromContext(telemetry.ExtractHeader(t.Context(), header))
	require.True(t, there.IsRemote())
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", there.TraceID().String())

	link, ok := telemetry.Link(sampled)
	require.True(t, ok)
	require.Equal(t, there.SpanID(), link.SpanContext.SpanID())

	unrecorded := telemetry.WithTraceparent(t.Context(), sampled[:len(sampled)-1]+"0")
	require.Empty(t, telemetry.Traceparent(unrecorded))
	require.Nil(t, telemetry.InjectHeader(unrecorded, nil))
	for _, malformed := range []string{"", "x", "00-0-0-01", sampled + "0"} {
		require.Equal(t, t.Context(), telemetry.WithTraceparent(t.Context(), malformed))
		_, ok := telemetry.Link(malformed)
		require.False(t, ok)
	}
	require.Equal(t, t.Context(), telemetry.ExtractHeader(t.Context(), nil))
}

func TestDiscard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // nothing of it runs in the background
		tel := telemetry.Discard()
		tel.Log.Error("nobody sees this")
		_, span := tel.Tracer("test").Start(t.Context(), "x")
		span.End()
		require.NoError(t, tel.Shutdown(t.Context()))
	})
}
