package rpc_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// feed answers ReadFeed with a function of the test.
type feed struct {
	historyv1.UnimplementedHistoryServiceServer

	read func(context.Context, *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error)
}

func (f *feed) ReadFeed(ctx context.Context, request *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
	return f.read(ctx, request)
}

func startFeed(t *testing.T, cfg rpc.ClientConfig, f *feed) (historyv1.HistoryServiceClient, func()) {
	t.Helper()
	tel := telemetry.Discard()
	server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0", StopTimeout: time.Hour}, tel)
	require.NoError(t, err)
	registerHistory(server, f)
	stop := serve(t, server)
	cfg.Service = rpc.RoleHistory
	conn, err := rpc.Dial(server.Addr(), cfg, tel)
	require.NoError(t, err)
	ended := false
	end := func() {
		if !ended {
			ended = true
			require.NoError(t, stop())
		}
	}
	t.Cleanup(func() {
		require.NoError(t, conn.Close())
		end()
	})
	return historyv1.NewHistoryServiceClient(conn), end
}

// The time that a long poll deliberately waits does not count towards the deadline of calls.
func TestALongPollMayWait(t *testing.T) {
	const timeout, wait = time.Minute, time.Hour
	left := make(chan time.Duration, 1)
	client, _ := startFeed(t, rpc.ClientConfig{Timeout: timeout}, &feed{read: func(ctx context.Context, _ *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return &historyv1.ReadFeedResponse{}, nil
	}})
	_, err := client.ReadFeed(t.Context(), &historyv1.ReadFeedRequest{WaitMs: uint32(wait.Milliseconds())})
	require.NoError(t, err)
	require.Greater(t, <-left, wait/2)
	_, err = client.ReadFeed(t.Context(), &historyv1.ReadFeedRequest{})
	require.NoError(t, err)
	require.LessOrEqual(t, <-left, timeout)
}

// After a failure all readers of a feed reconnect at once. None of them waits for another reader's poll.
func TestLongPollsDoNotWaitForEachOther(t *testing.T) {
	const readers = 30
	var mu sync.Mutex
	failing, waiting := true, make(chan struct{}, readers)
	client, _ := startFeed(t, rpc.ClientConfig{}, &feed{read: func(ctx context.Context, _ *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
		mu.Lock()
		fails := failing
		mu.Unlock()
		if fails {
			return nil, status.Error(codes.Unavailable, "away")
		}
		waiting <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	read := func() error {
		_, err := client.ReadFeed(ctx, &historyv1.ReadFeedRequest{WaitMs: 60_000})
		return err
	}
	for range 100 {
		require.ErrorContains(t, read(), "away", "each is asked")
	}
	mu.Lock()
	failing = false
	mu.Unlock()
	var polls sync.WaitGroup
	for range readers {
		polls.Go(func() {
			if err := read(); status.Code(err) != codes.Canceled {
				t.Errorf("ended with %v", err)
			}
		})
	}
	for range readers {
		<-waiting
	}
	cancel()
	polls.Wait()
}

// The number of long polls is limited, like that of other calls.
func TestLongPollsAreBounded(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	client, _ := startFeed(t, rpc.ClientConfig{MaxInFlight: 1}, &feed{read: func(context.Context, *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
		entered <- struct{}{}
		<-release
		return &historyv1.ReadFeedResponse{}, nil
	}})
	first := make(chan error, 1)
	go func() {
		_, err := client.ReadFeed(context.Background(), &historyv1.ReadFeedRequest{WaitMs: 60_000})
		first <- err
	}()
	<-entered
	_, err := client.ReadFeed(t.Context(), &historyv1.ReadFeedRequest{WaitMs: 60_000})
	require.Equal(t, codes.Unavailable, status.Code(err))
	close(release)
	require.NoError(t, <-first)
}

// A server that stops ends long polls. Otherwise the poll in this test would wait for an hour.
func TestAStoppingServerEndsLongPolls(t *testing.T) {
	entered := make(chan struct{})
	client, stop := startFeed(t, rpc.ClientConfig{}, &feed{read: func(ctx context.Context, _ *historyv1.ReadFeedRequest) (*historyv1.ReadFeedResponse, error) {
		close(entered)
		<-ctx.Done()
		return nil, errors.New("interrupted")
	}})
	ended := make(chan error, 1)
	go func() {
		_, err := client.ReadFeed(context.Background(), &historyv1.ReadFeedRequest{WaitMs: 60_000})
		ended <- err
	}()
	<-entered
	stop()
	err := <-ended
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.ErrorContains(t, err, "being stopped")
}
