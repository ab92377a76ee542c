package postgres_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store/postgres"
)

// TestPasswordBesideTheURL: the URL needs no password, as README.md says. It may be in ~/.pgpass or in PGPASSWORD.
func TestPasswordBesideTheURL(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PGPASSWORD", "")
	server, err := postgrestest.Run(t.Context(), dir)
	if errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })

	// As PostgreSQL's administrator: createuser --pwprompt, createdb --owner. From then on the server asks for passwords.
	admin, err := pgx.Connect(t.Context(), server.URL())
	require.NoError(t, err)
	for _, statement := range []string{"CREATE ROLE chat LOGIN PASSWORD 'open sesame'", "CREATE DATABASE chat OWNER chat"} {
		_, err = admin.Exec(t.Context(), statement)
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "data", "pg_hba.conf"), []byte("host sameuser all 127.0.0.1/32 scram-sha-256\n"), 0o600))
	_, err = admin.Exec(t.Context(), "SELECT pg_reload_conf()")
	require.NoError(t, err)
	require.NoError(t, admin.Close(t.Context()))

	at, err := url.Parse(server.URL())
	require.NoError(t, err)
	at.User, at.Path, at.RawQuery = url.User("chat"), "/chat", ""
	open := func() error {
		s, err := postgres.Open(t.Context(), postgres.Config{URL: at.String()}, 4, slog.New(slog.DiscardHandler))
		if err == nil {
			err = s.Close()
		}
		return err
	}
	require.Eventually(t, func() bool { return open() != nil }, 30*time.Second, 50*time.Millisecond, "without a password nobody gets in")

	pgpass := filepath.Join(home, ".pgpass")
	require.NoError(t, os.WriteFile(pgpass, fmt.Appendf(nil, "127.0.0.1:%s:chat:chat:open sesame\n", at.Port()), 0o600))
	require.NoError(t, open())
	require.NoError(t, os.Remove(pgpass))
	require.Error(t, open())
	t.Setenv("PGPASSWORD", "open sesame")
	require.NoError(t, open())
}
