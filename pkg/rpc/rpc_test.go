package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is a service whose Append runs a function of the test.
type history struct {
	historyv1.UnimplementedHistoryServiceServer
	append func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error)
}

func (h *history) Append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	return h.append(ctx, request)
}

// lines is a log that tests read while services write.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// transport is one of the two ways to call a service.
type transport func(tb testing.TB, tel *telemetry.Telemetry, service *history) grpc.ClientConnInterface

func overNetwork(tb testing.TB, tel *telemetry.Telemetry, service *history) grpc.ClientConnInterface {
	tb.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, tel)
	require.NoError(tb, err)
	registerHistory(server, service)
	stop := serve(tb, server)
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory}, tel)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		require.NoError(tb, conn.Close())
		require.NoError(tb, stop())
	})
	return conn
}

func inProcess(_ testing.TB, tel *telemetry.Telemetry, service *history) grpc.ClientConnInterface {
	inproc := rpc.NewInproc(tel)
	historyv1.RegisterHistoryServiceServer(inproc, service)
	return inproc
}

// serve runs a server. The returned function stops it and waits.
func serve(tb testing.TB, server *rpc.Server) (stop func() error) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	return func() error {
		cancel()
		return <-ended
	}
}

// TestTransports checks that both transports behave in the same way.
func TestTransports(t *testing.T) {
	for name, connect := range map[string]transport{"network": overNetwork, "in process": inProcess} {
		t.Run(name, func(t *testing.T) { testTransport(t, connect) })
	}
}

func testTransport(t *testing.T, connect transport) {
	t.Helper()
	log, tel, service := &lines{}, telemetry.Discard(), &history{}
	tel.Log = slog.New(slog.NewTextHandler(log, nil))
	conn := connect(t, tel, service)
	client := historyv1.NewHistoryServiceClient(conn)
	request := batch(3)

	t.Run("messages arrive whole", func(t *testing.T) {
		var received *historyv1.AppendRequest
		want := &historyv1.AppendResponse{Duplicates: []*historyv1.Duplicate{{Index: 1, First: batch(1).GetEvents()[0]}}}
		service.append = func(_ context.Context, r *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			received = r
			return want, nil
		}
		got, err := client.Append(t.Context(), request)
		require.NoError(t, err)
		require.True(t, proto.Equal(want, got))
		require.True(t, proto.Equal(request, received))
		require.NotSame(t, request, received)
		require.NotSame(t, want, got)

		service.append = func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) { return nil, nil }
		got, err = client.Append(t.Context(), &historyv1.AppendRequest{})
		require.NoError(t, err)
		require.True(t, proto.Equal(&historyv1.AppendResponse{}, got))
	})

	t.Run("errors keep their codes", func(t *testing.T) {
		for _, test := range []struct {
			err  error
			code codes.Code
			text string
		}{
			{status.Error(codes.Aborted, "the watermark moved"), codes.Aborted, "the watermark moved"},
			{fmt.Errorf("appending: %w", status.Error(codes.Aborted, "moved")), codes.Aborted, "appending"},
			{fmt.Errorf("appending: %w", context.DeadlineExceeded), codes.DeadlineExceeded, "appending"},
		} {
			service.append = func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
				return nil, test.err
			}
			_, err := client.Append(t.Context(), request)
			require.Equal(t, test.code, status.Code(err))
			require.ErrorContains(t, err, test.text)
		}
		require.Empty(t, log.String())
	})

	t.Run("defects are logged once and hidden", func(t *testing.T) {
		for _, defect := range []func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error){
			func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
				return nil, errors.New("relation events does not exist")
			},
			func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
				panic("relation events does not exist")
			},
		} {
			before := strings.Count(log.String(), "relation events")
			service.append = defect
			_, err := client.Append(t.Context(), request)
			require.Equal(t, codes.Internal, status.Code(err))
			require.NotContains(t, err.Error(), "relation")
			require.Equal(t, before+1, strings.Count(log.String(), "relation events"))
		}
	})

	t.Run("unknown methods", func(t *testing.T) {
		_, err := deliveryv1.NewDeliveryServiceClient(conn).Submit(t.Context(), &deliveryv1.SubmitRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
		_, err = client.Read(t.Context(), &historyv1.ReadRequest{})
		require.Equal(t, codes.Unimplemented, status.Code(err))
	})

	t.Run("cancellation reaches the handler", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		service.append = func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		}
		_, err := client.Append(ctx, request)
		require.Equal(t, codes.Canceled, status.Code(err))
		_, err = client.Append(ctx, request)
		require.Equal(t, codes.Canceled, status.Code(err), "and a call that is over before it begins makes none")
	})

	t.Run("metadata goes one hop", func(t *testing.T) {
		var received, next metadata.MD
		service.append = func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			received, _ = metadata.FromIncomingContext(ctx)
			next, _ = metadata.FromOutgoingContext(ctx)
			return &historyv1.AppendResponse{}, nil
		}
		ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("from", "before"))
		_, err := client.Append(metadata.AppendToOutgoingContext(ctx, "to", "history"), request)
		require.NoError(t, err)
		require.Equal(t, []string{"history"}, received.Get("to"))
		require.Empty(t, received.Get("from"))
		require.Empty(t, next)
		_, err = client.Append(ctx, request)
		require.NoError(t, err)
		require.Empty(t, received.Get("from"))
	})

	t.Run("calls are counted", func(t *testing.T) {
		counts := counted(t, tel.Registry)
		require.Equal(t, 4, counts["/runnel.history.v1.HistoryService/Append OK"])
		require.Equal(t, 2, counts["/runnel.history.v1.HistoryService/Append Internal"])
		require.Equal(t, 2, counts["/runnel.history.v1.HistoryService/Append Aborted"])
		require.Equal(t, 1, counts["/runnel.history.v1.HistoryService/Read Unimplemented"])
	})
}

// counted reads the metric that counts calls.
func counted(t *testing.T, registry *prometheus.Registry) map[string]int {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	counts := map[string]int{}
	for _, family := range families {
		if family.GetName() != "runnel_rpc_handled_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			counts[labels["method"]+" "+labels["code"]] = int(metric.GetCounter().GetValue())
		}
	}
	return counts
}

func TestTracesGoOn(t *testing.T) {
	for name, connect := range map[string]transport{"network": overNetwork, "in process": inProcess} {
		t.Run(name, func(t *testing.T) {
			// The spans are not collected, but they are really made.
			tel, err := telemetry.Start(t.Context(), "test", telemetry.Config{OTLPEndpoint: "127.0.0.1:1", SampleRatio: 1}, &lines{})
			require.NoError(t, err)
			t.Cleanup(func() {
				ctx, cancel := context.WithCancel(context.Background())
				cancel()
				require.NoError(t, tel.Shutdown(ctx))
			})
			var there trace.SpanContext
			client := historyv1.NewHistoryServiceClient(connect(t, tel, &history{
				append: func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
					there = trace.SpanContextFromContext(ctx)
					return nil, status.Error(codes.Aborted, "moved")
				},
			}))
			ctx, span := tel.Tracer("test").Start(t.Context(), "batch")
			defer span.End()
			_, err = client.Append(ctx, batch(1))
			require.Equal(t, codes.Aborted, status.Code(err))
			require.Equal(t, span.SpanContext().TraceID(), there.TraceID())
			require.NotEqual(t, span.SpanContext().SpanID(), there.SpanID())
			require.True(t, there.IsSampled())
		})
	}
}

// batch returns an append of n messages of 128 bytes.
func batch(n int) *historyv1.AppendRequest {
	body, _ := (&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: strings.Repeat("x", 128)}}}).MarshalVT()
	request := &historyv1.AppendRequest{
		Partition: 7,
		Expected:  &historyv1.Watermark{Stream: "1700000000000000000", Sequence: 41},
		Next:      &historyv1.Watermark{Stream: "1700000000000000000", Sequence: 41 + uint64(n)},
	}
	for i := range n {
		request.Events = append(request.Events, &conversationv1.Event{
			ConversationId: "g0123456789abcdefghijklmnop", Seq: uint64(i + 1), TimeMs: 1_700_000_000_000, Sender: "ann",
			CommandId: "0190b0a0-0000-7000-8000-000000000000", Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE,
			Body: body, Commitment: make([]byte, 32), Format: 2,
			Salt: make([]byte, 16), PrevHash: make([]byte, 32), Hash: make([]byte, 32),
		})
	}
	return request
}
