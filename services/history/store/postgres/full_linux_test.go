package postgres

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestFullTablespace fills the file system of the tables (53100): callers are asked to try again, and once there is space,
// writes succeed again without a restart.
func TestFullTablespace(t *testing.T) {
	dir := t.TempDir()
	server := run(t, dir)
	defer func() { require.NoError(t, server.Stop()) }()
	owner, err := os.Stat(filepath.Join(dir, "data"))
	require.NoError(t, err)
	small := filepath.Join(dir, "small")
	require.NoError(t, os.Mkdir(small, 0o700))
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=16m,mode=0700,uid=%d", owner.Sys().(*syscall.Stat_t).Uid)); err != nil {
		t.Skip("mounting a separate file system needs root: ", err)
	}
	defer func() {
		require.NoError(t, server.Stop()) // the server still has files open there
		require.NoError(t, syscall.Unmount(small, 0))
	}()
	operator, err := pgx.Connect(t.Context(), server.URL())
	require.NoError(t, err)
	_, err = operator.Exec(t.Context(), "CREATE TABLESPACE small LOCATION '"+small+"'")
	require.NoError(t, err)
	require.NoError(t, operator.Close(t.Context()))
	s := open(t, Config{URL: server.URL() + "&default_tablespace=small"})
	defer func() { require.NoError(t, s.Close()) }()
	worker := storetest.NewWorker(s, 0, storetest.ClockAt(0))
	id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
	filler := filepath.Join(small, "filler")
	require.NoError(t, os.WriteFile(filler, make([]byte, 12<<20), 0o600))

	acked, refused := 1, 0
	for refused < 20 {
		attempt := worker.Fork()
		batch := attempt.Batch(attempt.Apply(t, attempt.Command(id, "alice", storetest.Message(incompressible(4000))))...)
		if _, err := attempt.Append(t.Context(), batch); err != nil {
			require.ErrorIs(t, err, store.ErrUnavailable)
			require.ErrorContains(t, err, "53100")
			refused++
			continue
		}
		worker, acked = attempt, acked+1
	}
	require.Len(t, storetest.VerifyLog(t, s, id), acked, "exactly the acknowledged events exist")
	require.NoError(t, os.Remove(filler))
	for range 20 {
		worker.Commit(t, worker.Command(id, "alice", storetest.Message("after")))
	}
	require.Len(t, storetest.VerifyLog(t, s, id), acked+20)
}

// incompressible returns text that PostgreSQL cannot compress.
func incompressible(bytes int) string {
	random := make([]byte, bytes/2)
	_, _ = rand.Read(random) // never fails
	return hex.EncodeToString(random)
}
