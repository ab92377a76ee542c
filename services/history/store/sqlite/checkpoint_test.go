package sqlite

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestTheLogBeginsAgainUnderConstantWriting writes without a pause: the write-ahead log must not grow with all that is
// ever written.
func TestTheLogBeginsAgainUnderConstantWriting(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "history.db")}, 1, slog.New(slog.DiscardHandler))
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
	longest := 0
	deadline := time.Now().Add(30 * time.Second)
	for {
		require.True(t, time.Now().Before(deadline), "the log is %d pages long and never began again", longest)
		write("INSERT OR REPLACE INTO filler VALUES (1, randomblob(400000))") // about 100 pages
		pages, err := checkpoint(t.Context(), s.readers)
		require.NoError(t, err)
		if longest > restartPages && pages < longest/2 {
			return // it began again
		}
		longest = max(longest, pages)
	}
}
