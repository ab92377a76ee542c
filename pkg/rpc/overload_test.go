package rpc_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// Calls to a hanging server first end at their deadlines. Then no calls are made. Soon after the server has recovered,
// calls are made again.
func TestAServerThatHangsAndRecovers(t *testing.T) {
	tel := telemetry.Discard()
	var mu sync.Mutex
	hanging, entered := true, 0
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, tel)
	require.NoError(t, err)
	registerHistory(server, &history{append: func(ctx context.Context, _ *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
		mu.Lock()
		hangs := hanging
		entered++
		mu.Unlock()
		if hangs {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &historyv1.AppendResponse{}, nil
	}})
	stop := serve(t, server)
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory, Timeout: 100 * time.Millisecond}, tel)
	require.NoError(t, err)
	defer func() {
		require.NoError(t, conn.Close())
		require.NoError(t, stop())
	}()
	client := historyv1.NewHistoryServiceClient(conn)

	var calls sync.WaitGroup
	for range 40 {
		calls.Go(func() {
			_, err := client.Append(context.Background(), &historyv1.AppendRequest{})
			if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable {
				t.Errorf("ended with %v", err)
			}
		})
	}
	calls.Wait()
	require.Eventually(t, func() bool { // the first call may be one that tries the server again
		mu.Lock()
		before := entered
		mu.Unlock()
		_, err := client.Append(t.Context(), &historyv1.AppendRequest{})
		mu.Lock()
		defer mu.Unlock()
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "failed too often") && entered == before
	}, time.Minute, time.Millisecond, "calls are no longer made")
	mu.Lock()
	hanging = false
	mu.Unlock()
	require.Eventually(t, func() bool {
		_, err := client.Append(t.Context(), &historyv1.AppendRequest{})
		return err == nil
	}, time.Minute, 10*time.Millisecond)
}

// The calls of one method are limited, and do not block another method.
func TestAServerBoundsWhatItDoesAtOnce(t *testing.T) {
	const most = 3
	tel := telemetry.Discard()
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", MaxInFlight: most}, tel)
	require.NoError(t, err)
	release, entered := make(chan struct{}), make(chan struct{}, 1000)
	registerHistory(server, &history{append: func(context.Context, *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
		entered <- struct{}{}
		<-release
		return &historyv1.AppendResponse{}, nil
	}})
	stop := serve(t, server)
	conn, err := rpc.Dial(server.Addr(), rpc.ClientConfig{Service: rpc.RoleHistory}, tel)
	require.NoError(t, err)
	defer func() {
		require.NoError(t, conn.Close())
		require.NoError(t, stop())
	}()
	client := historyv1.NewHistoryServiceClient(conn)
	const flood = 12 * most
	ended := make(chan error, flood)
	for range flood {
		go func() {
			_, err := client.Append(context.Background(), &historyv1.AppendRequest{}, grpc.WaitForReady(true))
			ended <- err
		}()
	}
	for range most {
		<-entered
	}
	for range flood - most { // most of them after a moment in the queue; calls beyond the queue at once
		require.Equal(t, codes.Unavailable, status.Code(<-ended))
	}
	require.Empty(t, entered)
	_, err = client.Read(t.Context(), &historyv1.ReadRequest{})
	require.Equal(t, codes.Unimplemented, status.Code(err), "another method is answered")
	close(release)
	for range most {
		require.NoError(t, <-ended)
	}
}
