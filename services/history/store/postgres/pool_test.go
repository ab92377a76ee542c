package postgres

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

func open(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// impatient makes calls that find no free connection fail at once. Those that find one have a minute, so that a busy machine changes
// nothing.
func impatient(s *Store, call func()) {
	before := s.pool.patience
	s.pool.patience = time.Millisecond
	defer func() { s.pool.patience = before }()
	call()
}

// warm opens all connections.
func warm(t *testing.T, s *Store) {
	t.Helper()
	conns := make([]*pgxpool.Conn, s.pool.Config().MaxConns)
	for i := range conns {
		var err error
		conns[i], err = s.pool.Acquire(t.Context())
		require.NoError(t, err)
	}
	for _, conn := range conns {
		conn.Release()
	}
}

// hold uses connections of a lane until release is called.
func hold(t *testing.T, on lane, n int) (release func()) {
	t.Helper()
	var holding sync.WaitGroup
	taken, done := make(chan error, n), make(chan struct{})
	for range n {
		holding.Go(func() {
			err := on(t.Context(), func(*pgxpool.Conn) error {
				taken <- nil
				<-done
				return nil
			})
			if err != nil {
				taken <- err
			}
		})
	}
	for range n {
		require.NoError(t, <-taken)
	}
	return func() {
		close(done)
		holding.Wait()
	}
}

func TestNobodyWaitsLongForAConnection(t *testing.T) {
	s := open(t, Config{URL: postgrestest.Start(t), Connections: 2, AcquireTimeout: time.Minute})
	warm(t, s)
	release := hold(t, s.pool.working, 2)
	require.Equal(t, store.Stats{Backend: "postgres", Busy: 2, Open: 2, MaxConnections: 2}, s.Stats())
	impatient(s, func() {
		_, err := s.Heads(t.Context(), []string{"x"})
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.NotErrorIs(t, err, context.DeadlineExceeded, "the caller's deadline has not passed")
		_, err = s.Watermark(t.Context(), 0)
		require.ErrorIs(t, err, store.ErrUnavailable)
	})
	require.Equal(t, uint64(2), s.Stats().GivenUp)

	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Watermark(cancelled, 0)
	require.ErrorIs(t, err, context.Canceled)
	release()
	_, err = s.Watermark(t.Context(), 0)
	require.NoError(t, err)
	require.Zero(t, s.Stats().Waiting)
}

func TestReadingForClientsLeavesConnectionsForTheLog(t *testing.T) {
	s := open(t, Config{URL: postgrestest.Start(t), Connections: 4, AcquireTimeout: time.Minute})
	warm(t, s)
	release := hold(t, s.pool.reading, 2)
	defer release()
	impatient(s, func() {
		_, err := s.Heads(t.Context(), []string{"x"})
		require.ErrorIs(t, err, store.ErrUnavailable, "all connections for reading are in use")
	})
	worker := storetest.NewWorker(s, 0, storetest.ClockAt(0))
	worker.Commit(t, worker.CreateGroup("alice", "g"))
	_, err := s.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "w", TtlMs: 1000})
	require.NoError(t, err)
}

func TestSessionsAreGuarded(t *testing.T) {
	url := postgrestest.Start(t)
	show := func(s *Store, name string) (value string) {
		require.NoError(t, s.pool.QueryRow(t.Context(), "SELECT current_setting($1)", name).Scan(&value))
		return value
	}
	s := open(t, Config{URL: url})
	for name, want := range guards {
		if name == "tcp_keepalives_count" || name == "tcp_user_timeout" || name == "tcp_keepalives_idle" || name == "tcp_keepalives_interval" {
			want = map[string]string{"5s": "5", "2s": "2", "3": "3", "10s": "10000"}[want] // in the system's notation
		}
		require.Equal(t, want, show(s, name), name)
	}
	s = open(t, Config{URL: url + "&statement_timeout=7s"})
	require.Equal(t, "7s", show(s, "statement_timeout"), "a setting of the operator takes precedence")
}

// TestASessionThatVanishedHoldsNothingForLong leaves a transaction open that has locked all leases, like a service whose
// network fails in the middle of Lease.
func TestASessionThatVanishedHoldsNothingForLong(t *testing.T) {
	s := open(t, Config{URL: postgrestest.Start(t) + "&idle_in_transaction_session_timeout=300ms&lock_timeout=50ms"})
	gone, err := s.pool.Acquire(t.Context())
	require.NoError(t, err)
	defer gone.Release()
	_, err = gone.Exec(t.Context(), "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; SELECT FROM leases FOR UPDATE")
	require.NoError(t, err)
	request := &historyv1.LeaseRequest{Worker: "w", TtlMs: 1000}
	_, err = s.Lease(t.Context(), request)
	require.ErrorIs(t, err, store.ErrUnavailable)
	_, err = gone.Exec(t.Context(), "SET LOCAL idle_in_transaction_session_timeout TO DEFAULT") // from now on it is silent
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := s.Lease(t.Context(), request)
		return err == nil
	}, time.Minute, time.Millisecond)
}
