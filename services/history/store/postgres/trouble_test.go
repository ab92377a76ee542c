package postgres

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// load appends to some partitions, as delivery does: after a temporary error it reads the watermark, which shows whether
// the batch was committed, and continues with the next batch.
type load struct {
	t       *testing.T
	s       *Store
	stop    atomic.Bool
	running sync.WaitGroup
	acked   [4]atomic.Int64
	refused atomic.Int64
	ids     [4]string
}

func startLoad(t *testing.T, s *Store) *load {
	t.Helper()
	l := &load{t: t, s: s}
	for p := range l.ids {
		worker := storetest.NewWorker(s, ids.Partition(p), storetest.ClockAt(int64(p)<<32))
		l.ids[p] = worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
		l.running.Go(func() { l.append(p, worker) })
	}
	return l
}

func (l *load) append(p int, worker *storetest.Worker) {
	ctx := context.WithoutCancel(l.t.Context())
	for !l.stop.Load() {
		attempt := worker.Fork()
		batch := attempt.Batch(attempt.Apply(l.t, attempt.Command(l.ids[p], "alice", storetest.Message("m")))...)
		_, err := attempt.Append(ctx, batch)
		if err != nil {
			l.refused.Add(1)
			require.ErrorIs(l.t, err, store.ErrUnavailable)
			require.NotErrorIs(l.t, err, store.ErrDefect)
			watermark, err := l.s.Watermark(ctx, ids.Partition(p))
			for err != nil {
				require.ErrorIs(l.t, err, store.ErrUnavailable)
				watermark, err = l.s.Watermark(ctx, ids.Partition(p))
			}
			if watermark.GetSequence() != batch.GetNext().GetSequence() {
				continue
			}
			attempt.Watermark = watermark
		}
		worker = attempt
		l.acked[p].Add(1)
	}
}

// total waits until this many more have been committed.
func (l *load) more(n int64) {
	l.t.Helper()
	total := func() (n int64) {
		for p := range l.acked {
			n += l.acked[p].Load()
		}
		return n
	}
	begun := total()
	require.Eventually(l.t, func() bool { return total() >= begun+n }, time.Minute, time.Millisecond)
}

func (l *load) verify() {
	l.t.Helper()
	l.stop.Store(true)
	l.running.Wait()
	for p, id := range l.ids {
		require.Len(l.t, storetest.VerifyLog(l.t, l.s, id), int(l.acked[p].Load())+1)
	}
}

// TestTerminatedSessions repeatedly ends all sessions under load (57P01): callers are asked to try again, and no
// acknowledged append is lost or doubled.
func TestTerminatedSessions(t *testing.T) {
	at := postgrestest.Start(t)
	s := open(t, Config{URL: at})
	l := startLoad(t, s)
	operator, err := pgx.Connect(t.Context(), at)
	require.NoError(t, err)
	defer func() { require.NoError(t, operator.Close(t.Context())) }()
	for range 5 {
		l.more(20)
		_, err := operator.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runnel-history' AND datname = current_database()")
		require.NoError(t, err)
	}
	l.more(20)
	l.verify()
	require.Positive(t, l.refused.Load())
}

// TestAServerThatCannotBeWrittenIsNotReady: a standby, and a primary that was made read-only, answer queries and fail the ping.
func TestAServerThatCannotBeWrittenIsNotReady(t *testing.T) {
	at := postgrestest.Start(t)
	s := open(t, Config{URL: at})
	operator, err := pgx.Connect(t.Context(), at)
	require.NoError(t, err)
	defer func() { require.NoError(t, operator.Close(t.Context())) }()
	readOnly := func(setting string) {
		_, err := operator.Exec(t.Context(), "SET default_transaction_read_only = off")
		require.NoError(t, err)
		_, err = operator.Exec(t.Context(), fmt.Sprintf("DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET default_transaction_read_only = %s', current_database()); END $$", setting))
		require.NoError(t, err)
		_, err = operator.Exec(t.Context(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'runnel-history' AND datname = current_database()")
		require.NoError(t, err)
	}
	readOnly("on")
	require.Eventually(t, func() bool {
		err := s.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), codeReadOnly)
	}, time.Minute, time.Millisecond)
	_, err = s.Level(t.Context())
	require.NoError(t, err, "it can be read")
	readOnly("off")
	require.Eventually(t, func() bool { return s.Ping(t.Context()) == nil }, time.Minute, time.Millisecond)
}

// TestRestart stops and restarts PostgreSQL under load, as an operator does: callers see 57P01, then refused connections,
// then "the database system is starting up".
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	server := run(t, dir)
	s := open(t, Config{URL: server.URL(), AcquireTimeout: 500 * time.Millisecond})
	l := startLoad(t, s)
	l.more(50)
	before := l.refused.Load()
	require.NoError(t, server.Stop())
	require.Eventually(t, func() bool { return l.refused.Load() > before }, time.Minute, time.Millisecond)
	server = run(t, dir)
	l.more(50)
	l.verify()
	require.NoError(t, s.Close())
	require.NoError(t, server.Stop())
}

func run(t *testing.T, dir string) *postgrestest.Server {
	t.Helper()
	postgrestest.Start(t) // skips the test if there is no PostgreSQL
	server, err := postgrestest.Run(t.Context(), dir)
	require.NoError(t, err)
	return server
}

// TestStandby makes the database read-only, as a primary is after a failover, and writable again. Sessions keep the mode in
// which they were opened, so writes succeed again only because the store closes them.
func TestStandby(t *testing.T) {
	at := postgrestest.Start(t)
	parsed, err := url.Parse(at)
	require.NoError(t, err)
	database := strings.TrimPrefix(parsed.Path, "/")
	s := open(t, Config{URL: at, Connections: 4})
	worker := storetest.NewWorker(s, 0, storetest.ClockAt(0))
	id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
	operator, err := pgx.Connect(t.Context(), at)
	require.NoError(t, err)
	defer func() { require.NoError(t, operator.Close(t.Context())) }()
	_, err = operator.Exec(t.Context(), fmt.Sprintf("ALTER DATABASE %s SET default_transaction_read_only = on", database))
	require.NoError(t, err)
	s.pool.Reset()
	attempt := worker.Fork()
	batch := attempt.Batch(attempt.Apply(t, attempt.Command(id, "alice", storetest.Message("m")))...)
	_, err = attempt.Append(t.Context(), batch)
	require.ErrorIs(t, err, store.ErrUnavailable)
	require.ErrorContains(t, err, codeReadOnly)
	require.Len(t, storetest.ReadAll(t, s, id), 1, "reads still succeed")

	_, err = operator.Exec(t.Context(), fmt.Sprintf("SET default_transaction_read_only = off; ALTER DATABASE %s RESET default_transaction_read_only", database))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := attempt.Append(t.Context(), batch)
		return err == nil
	}, time.Minute, time.Millisecond)
	require.Len(t, storetest.VerifyLog(t, s, id), 2)
}
