package rpc_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestHealthAndReflection(t *testing.T) {
	tel := telemetry.Discard()
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, tel)
	require.NoError(t, err)
	registerHistory(server, &history{})
	stop := serve(t, server)
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory}, tel)
	require.NoError(t, err)
	defer func() {
		require.NoError(t, conn.Close())
		require.NoError(t, stop())
	}()

	health := healthv1.NewHealthClient(conn)
	for _, service := range []string{"", "runnel.history.v1.HistoryService"} {
		for _, serving := range []bool{true, false, true} {
			server.SetServing(serving)
			answer, err := health.Check(t.Context(), &healthv1.HealthCheckRequest{Service: service})
			require.NoError(t, err)
			require.Equal(t, serving, answer.GetStatus() == healthv1.HealthCheckResponse_SERVING)
		}
	}

	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	require.NoError(t, stream.Send(&reflectionv1.ServerReflectionRequest{
		MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{},
	}))
	answer, err := stream.Recv()
	require.NoError(t, err)
	var names []string
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	require.Contains(t, names, "runnel.history.v1.HistoryService")
	require.NoError(t, stream.CloseSend())
}

func TestMessageLimit(t *testing.T) {
	service := &history{append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
		return &historyv1.AppendResponse{}, nil
	}}
	client := historyv1.NewHistoryServiceClient(overNetwork(t, telemetry.Discard(), service))
	request := &historyv1.AppendRequest{DeadLetters: []*historyv1.DeadLetter{{Payload: make([]byte, 6<<20)}}}
	_, err := client.Append(t.Context(), request)
	require.NoError(t, err)
	request.DeadLetters[0].Payload = make([]byte, rpc.MaxMessageBytes)
	_, err = client.Append(t.Context(), request)
	require.Equal(t, codes.ResourceExhausted, status.Code(err))
}

// startCall begins a call that stays in its handler until release is closed or its context ends.
func startCall(t *testing.T, stopTimeout time.Duration) (stop func() error, release chan struct{}, answered <-chan error) {
	t.Helper()
	tel, entered, answers := telemetry.Discard(), make(chan struct{}), make(chan error, 1)
	release = make(chan struct{})
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", StopTimeout: stopTimeout}, tel)
	require.NoError(t, err)
	registerHistory(server, &history{
		append: func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
			close(entered)
			select {
			case <-release:
				return &historyv1.AppendResponse{}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	})
	stop = serve(t, server)
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory}, tel)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	go func() {
		_, err := historyv1.NewHistoryServiceClient(conn).Append(context.Background(), batch(1))
		answers <- err
	}()
	<-entered
	return stop, release, answers
}

func TestStopLetsCallsFinish(t *testing.T) {
	stop, release, answered := startCall(t, time.Hour)
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	close(release)
	require.NoError(t, <-answered)
	require.NoError(t, <-stopped)
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	stop, _, answered := startCall(t, time.Millisecond)
	require.NoError(t, stop())
	require.Contains(t, []codes.Code{codes.Unavailable, codes.Canceled}, status.Code(<-answered))
}

// A client reconnects when a service is back. While the service is down, calls fail at once.
func TestClientOutlivesTheServer(t *testing.T) {
	tel := telemetry.Discard()
	service := &history{append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
		return &historyv1.AppendResponse{}, nil
	}}
	start := func(addr string) (string, func() error) {
		server, err := rpc.NewServer(rpc.ServerConfig{Listen: addr}, tel)
		require.NoError(t, err)
		registerHistory(server, service)
		return server.Addr(), serve(t, server)
	}
	addr, stop := start("127.0.0.1:0")
	conn, err := rpc.Dial(addr, rpc.ClientConfig{Service: rpc.RoleHistory}, tel)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	client := historyv1.NewHistoryServiceClient(conn)
	_, err = client.Append(t.Context(), batch(1))
	require.NoError(t, err)

	require.NoError(t, stop())
	_, err = client.Append(t.Context(), batch(1))
	require.Equal(t, codes.Unavailable, status.Code(err))

	_, stop = start(addr)
	_, err = client.Append(t.Context(), batch(1), grpc.WaitForReady(true))
	require.NoError(t, err)
	require.NoError(t, stop())
}

func TestBadAddress(t *testing.T) {
	_, err := rpc.NewServer(rpc.ServerConfig{Listen: "nowhere"}, telemetry.Discard())
	require.ErrorContains(t, err, "gRPC server")
}

// The server does not wait for a client that connects but does not authenticate.
func TestAStrangerWhoSaysNothing(t *testing.T) {
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, telemetry.Discard())
	require.NoError(t, err)
	stop := serve(t, server)
	conn, err := net.Dial("tcp", server.Addr())
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	_, err = io.Copy(io.Discard, conn)
	require.NoError(t, err, "the server ends the connection, before a minute is over")
	require.NoError(t, stop())
}
