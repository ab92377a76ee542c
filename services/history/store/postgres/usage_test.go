package postgres_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// usage returns the number of the next transaction that writes, and the CPU of the server, which must run on this machine
// under Linux.
func usage(tb testing.TB, url string) (u storetest.Usage) {
	tb.Helper()
	conn := raw(tb, url)
	defer func() { require.NoError(tb, conn.Close(tb.Context())) }()
	var pidFile string
	var commits int
	require.NoError(tb, conn.QueryRow(tb.Context(), `SELECT pg_read_file('postmaster.pid'),
		pg_snapshot_xmax(pg_current_snapshot())::text::bigint`).Scan(&pidFile, &commits))
	server, _, _ := strings.Cut(pidFile, "\n")
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(tb, err)
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		pid := filepath.Base(filepath.Dir(path))
		_, rest, _ := strings.Cut(string(stat), ") ") // what precedes is the name
		fields := strings.Fields(rest)
		if pid != server && fields[1] != server {
			continue
		}
		u.CPU += ticks(tb, fields[11]) + ticks(tb, fields[12])
	}
	u.Commits = commits
	return u
}

// ticks converts a time of /proc, which is in hundredths of a second.
func ticks(tb testing.TB, field string) time.Duration {
	tb.Helper()
	n, err := strconv.ParseInt(field, 10, 64)
	require.NoError(tb, err, "%q", field)
	return time.Duration(n) * 10 * time.Millisecond
}
