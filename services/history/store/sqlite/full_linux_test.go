package sqlite

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestFullFileSystem fills a real file system, where SQLite fails at other places than at its own size limit: when the
// write-ahead log grows, or the memory-mapped file next to it. No acknowledged event may be lost, reads still succeed,
// every refusal asks the caller to try again, and once there is space, writes succeed again without a restart.
func TestFullFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("mounting a separate file system needs root: ", err)
	}
	defer func() { require.NoError(t, syscall.Unmount(dir, 0), "a closed store has no file open") }()
	s, err := Open(t.Context(), Config{Path: filepath.Join(dir, "history.db")}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	worker := storetest.NewWorker(s, 0, storetest.ClockAt(0))
	id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
	filler := filepath.Join(dir, "filler")
	require.NoError(t, os.WriteFile(filler, make([]byte, 2<<20), 0o600))

	ctx := context.WithoutCancel(t.Context())
	acked, refused := 1, 0
	for refused < 20 {
		attempt := worker.Fork()
		batch := attempt.Batch(attempt.Apply(t, attempt.Command(id, "alice", storetest.Message(strings.Repeat("x", 8000))))...)
		if _, err := attempt.Append(ctx, batch); err != nil {
			require.ErrorIs(t, err, store.ErrUnavailable)
			require.NotErrorIs(t, err, store.ErrDefect)
			refused++
			continue
		}
		worker, acked = attempt, acked+1
	}
	require.Greater(t, acked, 10)
	require.Len(t, storetest.VerifyLog(t, s, id), acked, "exactly the acknowledged events exist")
	for name, call := range map[string]func() error{
		"lease":  func() error { _, err := s.Lease(ctx, &historyv1.LeaseRequest{Worker: "w", TtlMs: 1}); return err },
		"revoke": func() error { _, err := s.Revoke(ctx, "alice"); return err },
	} {
		if err := call(); err != nil { // so small an event may still fit
			require.ErrorIs(t, err, store.ErrUnavailable, name)
		}
	}

	require.NoError(t, os.Remove(filler))
	for range 20 {
		worker.Commit(t, worker.Command(id, "alice", storetest.Message("after")))
	}
	require.Len(t, storetest.VerifyLog(t, s, id), acked+20)
}
