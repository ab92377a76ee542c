package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/postgres"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestKill kills PostgreSQL under load: callers get ErrUnavailable, and every acknowledged append exists afterwards.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	server, err := postgrestest.Run(t.Context(), dir)
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: server.URL()}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	acked := make([]int, storetest.Partitions)
	list := make([]string, storetest.Partitions)
	var total atomic.Int64
	enough := make(chan struct{})
	var running sync.WaitGroup
	for p := range list {
		worker := storetest.NewWorker(s, ids.Partition(p), storetest.ClockAt(int64(p)<<32))
		list[p] = worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
		running.Go(func() {
			for {
				batch := worker.Batch(worker.Apply(t, worker.Command(list[p], "alice", storetest.Message("m")))...)
				if _, err := worker.Append(context.WithoutCancel(t.Context()), batch); err != nil {
					require.ErrorIs(t, err, store.ErrUnavailable)
					require.NotErrorIs(t, err, store.ErrDefect)
					return
				}
				acked[p]++
				if total.Add(1) == 500 {
					close(enough)
				}
			}
		})
	}
	<-enough
	server.Kill()
	running.Wait()
	require.ErrorIs(t, s.Ping(t.Context()), store.ErrUnavailable)

	server, err = postgrestest.Run(t.Context(), dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Stop()) }()
	defer func() { require.NoError(t, s.Close()) }()
	require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, time.Minute, 10*time.Millisecond, "the store reconnects by itself")
	for p, id := range list {
		// One append may have been committed although its answer was lost.
		events := len(storetest.VerifyLog(t, s, id))
		require.GreaterOrEqual(t, events, acked[p]+1)
		require.LessOrEqual(t, events, acked[p]+2)
	}
}
