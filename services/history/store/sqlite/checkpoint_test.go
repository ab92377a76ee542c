package sqlite

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheLogBeginsAgainUnderConstantWriting writes without a pause: the write-ahead log must not keep growing.
func TestTheLogBeginsAgainUnderConstantWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	s, err := Open(t.Context(), Config{Path: path}, 1, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	write := func(query string) {
		t.Helper()
		require.NoError(t, s.writer.do(t.Context(), func(ctx context.Context, w *writer) error {
			_, err := w.conn.ExecContext(ctx, query)
			return err
		}, nil))
	}
	write("CREATE TABLE filler (id INTEGER PRIMARY KEY, content BLOB)")
	// The log's header has a new salt each time the log restarts (https://sqlite.org/fileformat2.html#walformat).
	salt := func() string {
		file, err := os.Open(path + "-wal")
		require.NoError(t, err)
		defer func() { require.NoError(t, file.Close()) }()
		header := make([]byte, 32)
		_, err = io.ReadFull(file, header)
		require.NoError(t, err)
		return string(header[16:24])
	}
	first, longest := salt(), int64(0)
	for salt() == first { // SQLite's own checkpoint ends the loop at the latest
		write("INSERT OR REPLACE INTO filler VALUES (1, randomblob(400000))") // about 100 pages
		info, err := os.Stat(path + "-wal")
		require.NoError(t, err)
		longest = max(longest, info.Size())
	}
	require.Less(t, longest, int64(autocheckpointPages*4096*9/10), "the log restarted before SQLite's own checkpoint")
}
