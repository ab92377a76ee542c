package postgrestest_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/runnelhq/runnel/pkg/postgrestest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func query(t *testing.T, url, statement string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) }()
	var text string
	require.NoError(t, conn.QueryRow(t.Context(), statement).Scan(&text))
	return text
}

func TestEachCallGivesADatabaseOfItsOwn(t *testing.T) {
	one, other := postgrestest.Start(t), postgrestest.Start(t)
	require.NotEqual(t, query(t, one, "SELECT current_database()"), query(t, other, "SELECT current_database()"))
}

func TestItIsDurableAsInProduction(t *testing.T) {
	url := postgrestest.Start(t)
	require.Equal(t, "on", query(t, url, "SHOW fsync"))
	require.Equal(t, "on", query(t, url, "SHOW synchronous_commit"))
}

func TestCommittedDataOutlivesKill(t *testing.T) {
	dir := t.TempDir()
	server, err := postgrestest.Run(t.Context(), dir)
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.Positive(t, server.PID())
	conn, err := pgx.Connect(t.Context(), server.URL())
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 7 AS n")
	require.NoError(t, err)
	server.Kill()
	require.NoError(t, conn.Close(t.Context()))

	server, err = postgrestest.Run(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, "7", query(t, server.URL(), "SELECT n::text FROM kept"))
	require.NoError(t, server.Stop())
}
