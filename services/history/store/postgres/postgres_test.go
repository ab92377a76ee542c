package postgres_test

import (
	"cmp"
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/postgres"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

var subject = storetest.Subject{New: newDatabase}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStore(t *testing.T) {
	keepServer(t)
	storetest.Run(t, subject)
}

// TestTwoServices opens the same database twice, as two history services do.
func TestTwoServices(t *testing.T) {
	keepServer(t)
	storetest.RunShared(t, subject)
}

func BenchmarkAppend(b *testing.B) {
	keepServer(b)
	storetest.Benchmark(b, subject)
}

func BenchmarkPaced(b *testing.B) {
	keepServer(b)
	storetest.BenchmarkPaced(b, subject)
}

func BenchmarkBytes(b *testing.B) { storetest.BenchmarkBytes(b, subject) }

func BenchmarkRead(b *testing.B) { storetest.BenchmarkRead(b, subject) }

// keepServer keeps the shared server running from the first subtest to the last.
func keepServer(tb testing.TB) {
	tb.Helper()
	postgrestest.Start(tb)
}

func newDatabase(tb testing.TB) *storetest.Database {
	tb.Helper()
	return databaseOf(tb, postgres.Config{URL: postgrestest.Start(tb)})
}

// databaseOf opens a store with a configuration. What bypasses the store bypasses a pooler as well.
func databaseOf(tb testing.TB, cfg postgres.Config) *storetest.Database {
	tb.Helper()
	url := cmp.Or(cfg.DirectURL, cfg.URL)
	open := func(ctx context.Context, partitions int) (store.Store, error) {
		return postgres.Open(ctx, cfg, partitions, slog.New(slog.DiscardHandler))
	}
	opened, err := open(tb.Context(), storetest.Partitions)
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, opened.Close()) })
	return &storetest.Database{
		Store:  opened,
		Reopen: open,
		EventBytes: func(tb testing.TB) map[string]int {
			tb.Helper()
			conn := raw(tb, url)
			defer func() { require.NoError(tb, conn.Close(tb.Context())) }()
			rows, err := conn.Query(tb.Context(), "SELECT relname, pg_relation_size(oid) FROM pg_class WHERE oid = 'events'::regclass OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = 'events'::regclass)")
			require.NoError(tb, err)
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
			exec(tb, url, "UPDATE events SET body = $1 WHERE conversation_id = $2 AND seq = $3", body, id, seq)
		},
		Delete: func(tb testing.TB, id string, seq uint64) {
			tb.Helper()
			exec(tb, url, "DELETE FROM events WHERE conversation_id = $1 AND seq = $2", id, seq)
		},
		Exec: func(tb testing.TB, statement string) {
			tb.Helper()
			conn := raw(tb, url)
			defer func() { require.NoError(tb, conn.Close(tb.Context())) }()
			_, err := conn.Exec(tb.Context(), statement)
			require.NoError(tb, err)
		},
		Count: func(tb testing.TB, query string) (n int) {
			tb.Helper()
			conn := raw(tb, url)
			defer func() { require.NoError(tb, conn.Close(tb.Context())) }()
			require.NoError(tb, conn.QueryRow(tb.Context(), query).Scan(&n))
			return n
		},
		Lanes: postgres.CommitLanes,
		Hold: func(tb testing.TB) (release func()) {
			tb.Helper()
			conn := raw(tb, url)
			tx, err := conn.Begin(tb.Context())
			require.NoError(tb, err)
			_, err = tx.Exec(tb.Context(), "LOCK TABLE partitions IN ACCESS EXCLUSIVE MODE")
			require.NoError(tb, err)
			return func() {
				require.NoError(tb, tx.Rollback(tb.Context()))
				require.NoError(tb, conn.Close(tb.Context()))
			}
		},
		Usage: func(tb testing.TB) storetest.Usage {
			tb.Helper()
			return usage(tb, url)
		},
		OpenFormer: func(tb testing.TB) error {
			tb.Helper()
			former := postgres.Config{URL: postgrestest.Start(tb)}
			conn := raw(tb, former.URL)
			_, err := conn.Exec(tb.Context(), storetest.FormerEvents)
			require.NoError(tb, err)
			require.NoError(tb, conn.Close(tb.Context()))
			_, err = postgres.Open(tb.Context(), former, storetest.Partitions, slog.New(slog.DiscardHandler))
			return err
		},
	}
}

func raw(tb testing.TB, url string) *pgx.Conn {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), url)
	require.NoError(tb, err)
	return conn
}

func exec(tb testing.TB, url, statement string, args ...any) {
	tb.Helper()
	conn := raw(tb, url)
	defer func() { require.NoError(tb, conn.Close(tb.Context())) }()
	tag, err := conn.Exec(tb.Context(), statement, args...)
	require.NoError(tb, err)
	require.Equal(tb, int64(1), tag.RowsAffected())
}
