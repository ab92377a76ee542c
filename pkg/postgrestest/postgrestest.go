// Package postgrestest provides a private PostgreSQL server for tests, benchmarks and fault runs. It uses the installed
// binaries, a free loopback port and a temporary data directory. The server is as durable as in production (fsync on).
//
// It never touches a server that it did not start, with one exception: RUNNEL_TEST_POSTGRES_URL may name a server on
// which the user may create databases. Each test then gets a fresh database on that server, which is dropped afterwards.
package postgrestest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Env is the environment variable that names a server to use instead of starting one.
const Env = "RUNNEL_TEST_POSTGRES_URL"

// shared is the only server of a test process. It stops after the last test that uses it; the next test starts a new one.
var shared struct {
	sync.Mutex
	users  int
	server *Server
	dir    string
}

// Start returns the URL of a fresh, empty database for a test. The database is dropped when the test ends. Tests of one
// process share a server. Without an installed PostgreSQL and without RUNNEL_TEST_POSTGRES_URL, the test is skipped, or
// fails if CI is set.
func Start(tb testing.TB) string {
	tb.Helper()
	admin := os.Getenv(Env)
	if admin == "" {
		admin = acquire(tb)
	}
	name := "runnel_test_" + randomHex()
	run(tb, admin, "CREATE DATABASE "+name)
	tb.Cleanup(func() { run(tb, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	database, err := url.Parse(admin)
	if err != nil {
		tb.Fatalf("%s is not a URL", Env)
	}
	database.Path = "/" + name
	return database.String()
}

// acquire starts the shared server or joins it.
func acquire(tb testing.TB) (admin string) {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.users == 0 {
		// The test's own directory cannot be used, because the server outlives the test that starts it.
		dir, err := os.MkdirTemp("", "runnel-postgres-") //nolint:usetesting // see above
		if err != nil {
			tb.Fatalf("make a directory for PostgreSQL: %v", err)
		}
		server, err := Run(context.Background(), dir)
		if err != nil {
			_ = os.RemoveAll(dir)
			if errors.Is(err, ErrNotInstalled) && os.Getenv("CI") == "" {
				tb.Skipf("%s skipped: %v", tb.Name(), err)
			}
			tb.Fatalf("start PostgreSQL: %v", err)
		}
		shared.server, shared.dir = server, dir
	}
	shared.users++
	tb.Cleanup(release)
	return shared.server.URL()
}

func release() {
	shared.Lock()
	defer shared.Unlock()
	if shared.users--; shared.users > 0 {
		return
	}
	_ = shared.server.Stop()
	_ = os.RemoveAll(shared.dir)
	shared.server, shared.dir = nil, ""
}

func run(tb testing.TB, admin, statement string) {
	tb.Helper()
	// The test's context cannot be used, because it has ended when cleanups run.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		tb.Fatalf("connect to PostgreSQL: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, statement); err != nil {
		tb.Fatalf("%s: %v", statement, err)
	}
}

func randomHex() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
