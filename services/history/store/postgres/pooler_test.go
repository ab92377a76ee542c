package postgres_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store/postgres"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// bouncer starts a PgBouncer in transaction mode before the server of a URL, and returns that URL through it. It skips the test
// where PgBouncer is not installed (Debian: apt-get install pgbouncer).
func bouncer(tb testing.TB, direct, extra string) string {
	tb.Helper()
	program, err := osexec.LookPath("pgbouncer")
	if err != nil {
		program = "/usr/sbin/pgbouncer"
	}
	if _, err := os.Stat(program); err != nil {
		tb.Skip("PgBouncer is not installed")
	}
	to, err := url.Parse(direct)
	require.NoError(tb, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(tb, err)
	require.NoError(tb, listener.Close())
	dir, err := os.MkdirTemp("", "bouncer") //nolint:usetesting // PgBouncer runs as another user, who may not enter tb.TempDir
	require.NoError(tb, err)
	tb.Cleanup(func() { require.NoError(tb, os.RemoveAll(dir)) })
	require.NoError(tb, os.Chmod(dir, 0o755))
	config := fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 3
max_prepared_statements = 0
server_round_robin = 1
%s
`, to.Hostname(), to.Port(), to.User.Username(), port, extra)
	config = dropUnknown(tb, program, config)
	path := filepath.Join(dir, "pgbouncer.ini")
	require.NoError(tb, os.WriteFile(path, []byte(config), 0o644))
	args := []string{path}
	if os.Getuid() == 0 {
		args = []string{"-u", "nobody", path}
	}
	var output bytes.Buffer
	process := osexec.Command(program, args...)
	process.Stdout, process.Stderr = &output, &output
	require.NoError(tb, process.Start())
	tb.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	})
	through := *to
	through.Host = net.JoinHostPort("127.0.0.1", port)
	require.Eventually(tb, func() bool {
		conn, err := pgx.Connect(tb.Context(), through.String())
		if err != nil {
			return false
		}
		return conn.Close(tb.Context()) == nil
	}, 30*time.Second, 20*time.Millisecond, "%s", &output)
	return through.String()
}

// dropUnknown leaves out what older versions do not know: they have no prepared statements in transaction mode at all.
func dropUnknown(tb testing.TB, program, config string) string {
	tb.Helper()
	version, err := osexec.Command(program, "--version").Output()
	require.NoError(tb, err)
	var major, minor int
	_, err = fmt.Sscanf(string(version), "PgBouncer %d.%d", &major, &minor)
	require.NoError(tb, err)
	if minor < 21 {
		config = string(bytes.ReplaceAll([]byte(config), []byte("max_prepared_statements = 0\n"), nil))
	}
	return config
}

// TestStoreThroughPgBouncer runs the conformance suite through a pooler that gives each transaction another server connection.
func TestStoreThroughPgBouncer(t *testing.T) {
	keepServer(t)
	pooled := storetest.Subject{New: func(tb testing.TB) *storetest.Database {
		tb.Helper()
		direct := postgrestest.Start(tb)
		return databaseOf(tb, postgres.Config{URL: bouncer(tb, direct, ""), DirectURL: direct})
	}}
	t.Run("one service", func(t *testing.T) { storetest.Run(t, pooled) })
	t.Run("two services", func(t *testing.T) { storetest.RunShared(t, pooled) })
}

// A pooler that nobody told of is refused at the start, with what to do about it, whether it refuses the settings of a connection
// or ignores them.
func TestAPoolerIsRefusedUnlessItIsConfigured(t *testing.T) {
	direct := postgrestest.Start(t)
	for name, extra := range map[string]string{
		"refuses settings": "",
		"ignores settings": "ignore_startup_parameters = synchronous_commit,default_transaction_isolation,enable_seqscan,enable_hashjoin," +
			"enable_mergejoin,enable_material,jit,plan_cache_mode,statement_timeout,lock_timeout,idle_in_transaction_session_timeout," +
			"tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count,tcp_user_timeout",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := postgres.Open(t.Context(), postgres.Config{URL: bouncer(t, direct, extra)}, 1, slog.New(slog.DiscardHandler))
			require.ErrorIs(t, err, postgres.ErrPooler)
			require.ErrorContains(t, err, "--history.direct-url")
		})
	}
	t.Run("warns of what the role lacks", func(t *testing.T) {
		var log bytes.Buffer
		opened, err := postgres.Open(t.Context(), postgres.Config{URL: bouncer(t, direct, ""), DirectURL: direct}, 1, slog.New(slog.NewTextHandler(&log, nil)))
		require.NoError(t, err)
		require.NoError(t, opened.Close())
		require.Contains(t, log.String(), "lock_timeout = '3s'")
		require.Contains(t, log.String(), "plan_cache_mode = force_generic_plan")
	})
}
