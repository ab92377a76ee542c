package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/runnelhq/runnel/services/history/store"
)

func TestOnlyWhatWasWrittenIsToBlameForGood(t *testing.T) {
	for code, want := range map[int]bool{
		sqlite3.SQLITE_CONSTRAINT_UNIQUE: true, sqlite3.SQLITE_CONSTRAINT_NOTNULL: true, sqlite3.SQLITE_MISMATCH: true,
		sqlite3.SQLITE_TOOBIG: true, sqlite3.SQLITE_RANGE: true,

		sqlite3.SQLITE_FULL: false, sqlite3.SQLITE_IOERR: false, sqlite3.SQLITE_IOERR_WRITE: false, sqlite3.SQLITE_IOERR_FSYNC: false,
		sqlite3.SQLITE_IOERR_SHMSIZE: false, sqlite3.SQLITE_BUSY: false, sqlite3.SQLITE_BUSY_SNAPSHOT: false, sqlite3.SQLITE_LOCKED: false,
		sqlite3.SQLITE_NOMEM: false, sqlite3.SQLITE_READONLY: false, sqlite3.SQLITE_READONLY_DBMOVED: false, sqlite3.SQLITE_CORRUPT: false,
		sqlite3.SQLITE_NOTADB: false, sqlite3.SQLITE_CANTOPEN: false, sqlite3.SQLITE_PERM: false, sqlite3.SQLITE_AUTH: false,
		sqlite3.SQLITE_PROTOCOL: false, sqlite3.SQLITE_INTERRUPT: false, sqlite3.SQLITE_ERROR: false, sqlite3.SQLITE_INTERNAL: false,
	} {
		require.Equal(t, want, lasting(code), "code %d", code)
	}
	unknown := errors.New("something else")
	require.ErrorIs(t, wrap("try", unknown), store.ErrUnavailable)
	require.ErrorIs(t, wrap("try", unknown), unknown)
	gone := fmt.Errorf("wait: %w", context.Canceled)
	require.NotErrorIs(t, wrap("try", gone), store.ErrUnavailable, "the caller has cancelled; the database is healthy")
	require.NoError(t, wrap("try", nil))
}

// TestRealErrorsAreTold causes the errors in SQLite itself.
func TestRealErrorsAreTold(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "history.db")}, 1, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for query, want := range map[string]error{
		"INSERT INTO meta (key, value) VALUES ('x', NULL)":         store.ErrDefect,
		"INSERT INTO leases (partition) VALUES ('not a number')":   store.ErrDefect,
		"INSERT INTO meta (key, value) VALUES ('partitions', '7')": store.ErrDefect,
		"INSERT INTO nowhere VALUES (1)":                           store.ErrUnavailable,
	} {
		err := wrap("try", s.writer.do(t.Context(), func(ctx context.Context, w *writer) error {
			_, err := w.conn.ExecContext(ctx, query)
			return err
		}, nil))
		require.ErrorIs(t, err, want, query)
	}
	_, err = s.readers.ExecContext(t.Context(), "DELETE FROM meta")
	require.ErrorIs(t, wrap("write where only reading is allowed", err), store.ErrUnavailable)
}
