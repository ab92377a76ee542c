package sqlite_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/sqlite"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

var subject = storetest.Subject{New: newDatabase}

func TestStore(t *testing.T) { storetest.Run(t, subject) }

func BenchmarkAppend(b *testing.B) {
	for _, gather := range []time.Duration{0, time.Millisecond} {
		b.Run(fmt.Sprintf("gather=%s", gather), func(b *testing.B) { storetest.Benchmark(b, gathering(gather)) })
	}
}

func BenchmarkPaced(b *testing.B) {
	for _, gather := range []time.Duration{0, time.Millisecond, 2 * time.Millisecond} {
		b.Run(fmt.Sprintf("gather=%s", gather), func(b *testing.B) { storetest.BenchmarkPaced(b, gathering(gather)) })
	}
}

func BenchmarkBytes(b *testing.B) { storetest.BenchmarkBytes(b, subject) }

func BenchmarkRead(b *testing.B) { storetest.BenchmarkRead(b, subject) }

func newDatabase(tb testing.TB) *storetest.Database {
	tb.Helper()
	return databaseOf(tb, time.Millisecond)
}

// gathering is the store with a setting of Gather.
func gathering(gather time.Duration) storetest.Subject {
	return storetest.Subject{New: func(tb testing.TB) *storetest.Database {
		tb.Helper()
		return databaseOf(tb, gather)
	}}
}

func databaseOf(tb testing.TB, gather time.Duration) *storetest.Database {
	tb.Helper()
	cfg := sqlite.Config{Path: filepath.Join(tb.TempDir(), "a directory", "it's 100% history?.db"), Gather: gather}
	open := func(ctx context.Context, partitions int) (store.Store, error) {
		return sqlite.Open(ctx, cfg, partitions, slog.New(slog.DiscardHandler))
	}
	opened, err := open(tb.Context(), storetest.Partitions)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, opened.Close()) })
	return &storetest.Database{
		Store:  opened,
		Reopen: open,
		EventBytes: func(tb testing.TB) map[string]int {
			tb.Helper()
			db := raw(tb, cfg.Path)
			defer func() { require.NoError(tb, db.Close()) }()
			rows, err := db.QueryContext(tb.Context(), "SELECT name, sum(pgsize) FROM dbstat WHERE name IN (SELECT name FROM sqlite_schema WHERE tbl_name = 'events') GROUP BY name")
			require.NoError(tb, err)
			defer func() { require.NoError(tb, rows.Close()) }()
			sizes := map[string]int{}
			for rows.Next() {
				var name string
				var bytes int
				require.NoError(tb, rows.Scan(&name, &bytes))
				sizes[name] = bytes
			}
			require.NoError(tb, rows.Err())
			return sizes
		},
		SetBody: func(tb testing.TB, id string, seq uint64, body []byte) {
			tb.Helper()
			change(tb, cfg.Path, "UPDATE events SET body = ? WHERE conversation_id = ? AND seq = ?", body, id, int64(seq))
		},
		Delete: func(tb testing.TB, id string, seq uint64) {
			tb.Helper()
			change(tb, cfg.Path, "DELETE FROM events WHERE conversation_id = ? AND seq = ?", id, int64(seq))
		},
		Exec: func(tb testing.TB, statement string) {
			tb.Helper()
			db := raw(tb, cfg.Path)
			defer func() { require.NoError(tb, db.Close()) }()
			_, err := db.ExecContext(tb.Context(), statement)
			require.NoError(tb, err)
		},
		Count: func(tb testing.TB, query string) (n int) {
			tb.Helper()
			db := raw(tb, cfg.Path)
			defer func() { require.NoError(tb, db.Close()) }()
			require.NoError(tb, db.QueryRowContext(tb.Context(), query).Scan(&n))
			return n
		},
		Lanes: 1,
		Hold: func(tb testing.TB) (release func()) {
			tb.Helper()
			db := raw(tb, cfg.Path)
			tx, err := db.Conn(tb.Context())
			require.NoError(tb, err)
			_, err = tx.ExecContext(tb.Context(), "BEGIN IMMEDIATE")
			require.NoError(tb, err)
			return func() {
				_, err := tx.ExecContext(tb.Context(), "ROLLBACK")
				require.NoError(tb, err)
				require.NoError(tb, tx.Close())
				require.NoError(tb, db.Close())
			}
		},
		Usage: func(testing.TB) storetest.Usage { return storetest.Usage{Commits: int(opened.Stats().Commits)} },
		OpenFormer: func(tb testing.TB) error {
			tb.Helper()
			path := filepath.Join(tb.TempDir(), "former.db")
			db := raw(tb, path)
			_, err := db.ExecContext(tb.Context(), storetest.FormerEvents)
			require.NoError(tb, err)
			require.NoError(tb, db.Close())
			_, err = sqlite.Open(tb.Context(), sqlite.Config{Path: path}, storetest.Partitions, slog.New(slog.DiscardHandler))
			return err
		},
	}
}

// TestCloseLetsGoOfTheFiles: SQLite removes the write-ahead log when the last connection is closed, so the file shows
// whether one is left open.
func TestCloseLetsGoOfTheFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	worker := storetest.NewWorker(s, 0, storetest.ClockAt(0))
	storetest.VerifyLog(t, s, worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId())
	require.FileExists(t, path+"-wal")
	require.NoError(t, s.Close())
	require.NoFileExists(t, path+"-wal")
}

// TestAStuckWriterIsNotReady: a database that can be read and not written fails the ping within the caller's time, and passes
// it when it can be written again.
func TestAStuckWriterIsNotReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	db := raw(t, path)
	defer func() { require.NoError(t, db.Close()) }()
	other, err := db.Conn(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	_, err = other.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, s.Ping(ctx), context.DeadlineExceeded)
	_, err = s.Level(t.Context())
	require.NoError(t, err, "it can be read")
	_, err = other.ExecContext(t.Context(), "ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, s.Ping(t.Context()))
}

// raw opens the file as another program would.
func raw(tb testing.TB, path string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("sqlite", sqlite.DSN(path, []string{"busy_timeout(5000)"}))
	require.NoError(tb, err)
	return db
}

func change(tb testing.TB, path, statement string, args ...any) {
	tb.Helper()
	db := raw(tb, path)
	defer func() { require.NoError(tb, db.Close()) }()
	result, err := db.ExecContext(tb.Context(), statement, args...)
	require.NoError(tb, err)
	changed, err := result.RowsAffected()
	require.NoError(tb, err)
	require.Equal(tb, int64(1), changed)
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
