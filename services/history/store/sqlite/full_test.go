package sqlite

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestFullDisk fills the database under concurrent appends. SQLite then ends the whole transaction by itself: every append
// of the group must get an error, none of them may exist, and once there is space, appends succeed again.
func TestFullDisk(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "history.db")}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	workers := make([]*storetest.Worker, storetest.Partitions)
	list := make([]string, len(workers))
	for p := range workers {
		workers[p] = storetest.NewWorker(s, ids.Partition(p), storetest.ClockAt(int64(p)<<32))
		list[p] = workers[p].Commit(t, workers[p].CreateGroup("alice", "g"))[0].GetConversationId()
	}
	limitPages(t, s, 60)
	var running sync.WaitGroup
	acked := make([]int, len(workers))
	for p, worker := range workers {
		running.Go(func() {
			for {
				attempt := worker.Fork()
				batch := attempt.Batch(attempt.Apply(t, attempt.Command(list[p], "alice", storetest.Message(strings.Repeat("x", 8000))))...)
				if _, err := attempt.Append(context.WithoutCancel(t.Context()), batch); err != nil {
					require.ErrorIs(t, err, store.ErrUnavailable)
					return
				}
				worker, acked[p] = attempt, acked[p]+1
			}
		})
	}
	running.Wait()
	for p, id := range list {
		require.Len(t, storetest.VerifyLog(t, s, id), acked[p]+1, "exactly the acknowledged events exist")
	}
	limitPages(t, s, 1<<30)
	again := storetest.NewWorker(s, 0, storetest.ClockAt(1<<45))
	again.Watermark, err = s.Watermark(t.Context(), 0)
	require.NoError(t, err)
	again.Commit(t, again.CreateGroup("alice", "after"))
}

// limitPages limits the database to this many pages. It goes through the writer, like everything on the writer's
// connection.
func limitPages(t *testing.T, s *Store, pages int) {
	t.Helper()
	require.NoError(t, s.writer.do(t.Context(), func(ctx context.Context, w *writer) error {
		_, err := w.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
		return err
	}, nil))
}
