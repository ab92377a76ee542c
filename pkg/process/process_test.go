package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/runnelhq/runnel/pkg/process"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func settings() process.Config {
	return process.Config{
		RPC: rpc.ServerConfig{Listen: "127.0.0.1:0"}, Admin: telemetry.AdminConfig{Listen: "127.0.0.1:0"},
		Telemetry: telemetry.Config{LogLevel: "info", LogFormat: "text"},
	}
}

func readiness(t *testing.T, admin *telemetry.Admin) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + admin.Addr() + "/readyz")
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.StatusCode
}

// A draining service is unready, but can still be inspected and called. Its dependencies are closed last.
func TestTheEndComesInOrder(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var order []string
	var log bytes.Buffer // read after the process has ended
	var p *process.Process
	running, drain := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- process.Run(ctx, "test", settings(), &log, func(_ context.Context, made *process.Process) error {
			p = made
			p.AtEnd(func() error { order = append(order, "store"); return nil })
			p.AtEnd(func() error { order = append(order, "broker"); return nil })
			p.Check("always", func(context.Context) error { return nil })
			p.Go(func(ctx context.Context) error {
				close(running)
				<-ctx.Done()
				<-drain
				order = append(order, "service")
				return nil
			})
			return nil
		})
	}()
	<-running
	require.Equal(t, http.StatusOK, readiness(t, p.Admin))
	var conn grpc.ClientConnInterface
	conn, err := p.Dial(p.Server.Addr(), rpc.RoleHistory)
	require.NoError(t, err)

	cancel()
	require.Eventually(t, func() bool { return readiness(t, p.Admin) == http.StatusServiceUnavailable }, time.Minute, time.Millisecond)
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
	require.NoError(t, err, "it can be called until the service has ended")
	close(drain)
	require.NoError(t, <-ended)
	require.Equal(t, []string{"service", "broker", "store"}, order)
	require.Regexp(t, `msg=stopped .*version=\S+ ran=\S+\n$`, log.String(), "the last line")
}

func TestAPartThatFailsEndsTheProcess(t *testing.T) {
	broken := errors.New("broken")
	err := process.Run(t.Context(), "test", settings(), io.Discard, func(_ context.Context, p *process.Process) error {
		p.Go(func(context.Context) error { return broken })
		p.Go(func(ctx context.Context) error { <-ctx.Done(); return nil })
		return nil
	})
	require.ErrorIs(t, err, broken)
}

func TestWhatCannotBePutTogetherIsClosed(t *testing.T) {
	broken, closed := errors.New("broken"), false
	err := process.Run(t.Context(), "test", settings(), io.Discard, func(_ context.Context, p *process.Process) error {
		p.AtEnd(func() error { closed = true; return nil })
		return broken
	})
	require.ErrorIs(t, err, broken)
	require.True(t, closed)
}

func TestATakenPortIsFoundAtOnce(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	cfg := settings()
	cfg.Admin.Listen = taken.Addr().String()
	err = process.Run(t.Context(), "test", cfg, io.Discard, func(context.Context, *process.Process) error {
		t.Error("nothing should be put together")
		return nil
	})
	require.ErrorContains(t, err, "admin server")
}
