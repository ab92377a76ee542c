// Package postgres is the store for PostgreSQL 15 or later. Several history services can use it at the same time. Appends
// are ordinary concurrent transactions of one round trip each; PostgreSQL's own group commit shares the fsyncs. Every
// answered write is on disk (synchronous_commit = on).
package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/history/store"
)

// Config selects the database.
type Config struct {
	// URL is postgres://user:password@host/database. Required.
	URL string
	// DirectURL is the URL of PostgreSQL itself if URL leads to a connection pooler in transaction mode. Migrations and
	// the connection that listens for notifications use it. Defaults to empty: there is no pooler.
	DirectURL string
	// Connections is the maximum number of connections, in addition to the one that listens for notifications of other
	// services. A partition's append uses one connection at a time, so more connections than partitions help only reads.
	// Defaults to 20.
	Connections int
	// ConnectTimeout is the time limit for opening a connection. Defaults to 5 s.
	ConnectTimeout time.Duration
	// AcquireTimeout is how long a call waits for a connection before it fails with ErrUnavailable. Defaults to 2 s.
	AcquireTimeout time.Duration
}

const (
	defaultConnections    = 20
	defaultConnectTimeout = 5 * time.Second
	defaultAcquireTimeout = 2 * time.Second
)

// guards are session settings that end sessions which would block others; the URL may override them. The values are
// generous, for slow disks: statements normally take milliseconds.
var guards = map[string]string{
	// After this time the caller has long stopped waiting.
	"statement_timeout": "10s",
	// An append waits only for the commit of another append on its partition.
	"lock_timeout": "3s",
	// A history service that disappeared during Lease has locked all leases.
	"idle_in_transaction_session_timeout": "5s",
	// A service that disappeared during an append has locked its partition. PostgreSQL notices this only because the
	// connection is silent; by default it would wait for two hours.
	"tcp_keepalives_idle": "5s", "tcp_keepalives_interval": "2s", "tcp_keepalives_count": "3", "tcp_user_timeout": "10s",
}

// Store is the store in a PostgreSQL database.
type Store struct {
	pool       *pool
	partitions int
	bells      store.Bells
	news       *news
	committer  *committer
	commits    atomic.Uint64
	pooled     bool // connections go through a pooler; see pooler.go
}

var _ store.Store = (*Store)(nil)

// minVersion is the oldest tested version of PostgreSQL.
const minVersion = 150000

//go:embed migrations/*.sql
var migrations embed.FS

// errURL replaces pgx's error. Its text masks the password only if pgx recognises it as a password.
var errURL = errors.New("the PostgreSQL URL cannot be read: it should look like postgres://user:password@host/database")

// CheckURL returns an error if a URL cannot be read. It does not connect.
func CheckURL(url string) error {
	if _, err := pgxpool.ParseConfig(url); err != nil {
		return errURL
	}
	return nil
}

// Open connects and updates the schema. partitions must be the number that the database was created with. Several processes
// may open the same new database at once.
func Open(ctx context.Context, cfg Config, partitions int, log *slog.Logger) (*Store, error) {
	settings, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		return nil, errURL
	}
	settings.MaxConns = int32(cmp.Or(cfg.Connections, defaultConnections))
	settings.ConnConfig.ConnectTimeout = cmp.Or(cfg.ConnectTimeout, defaultConnectTimeout)
	direct := settings.ConnConfig
	if cfg.DirectURL != "" {
		if direct, err = pgx.ParseConfig(cfg.DirectURL); err != nil {
			return nil, errors.New("the direct PostgreSQL URL cannot be read: it should look like postgres://user:password@host/database")
		}
		direct.ConnectTimeout = settings.ConnConfig.ConnectTimeout
		throughPooler(settings.ConnConfig)
	}
	tune(direct.RuntimeParams)
	// Migrations may take longer than the time limit of a call.
	migrating := direct.Copy()
	for guard, value := range guards {
		if _, set := direct.RuntimeParams[guard]; !set {
			direct.RuntimeParams[guard] = value
		}
	}
	patience := cmp.Or(cfg.AcquireTimeout, defaultAcquireTimeout)
	// A call that gets a dead idle connection must notice it before its own time limit.
	settings.PingTimeout = patience / 4

	connections, err := pgxpool.NewWithConfig(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("prepare the PostgreSQL connections: %w", err)
	}
	s := &Store{pool: newPool(connections, patience), partitions: partitions, pooled: cfg.DirectURL != ""}
	if err := s.prepare(ctx, migrating, log); err != nil {
		connections.Close()
		return nil, fmt.Errorf("open the PostgreSQL database %s at %s: %w", settings.ConnConfig.Database, settings.ConnConfig.Host, err)
	}
	s.news = startNews(ctx, s, direct, log)
	s.committer = startCommitter(commitLanes, s.commitTogether)
	log.InfoContext(ctx, "history is in PostgreSQL", "host", settings.ConnConfig.Host, "database", settings.ConnConfig.Database, "partitions", partitions)
	return s, nil
}

func (s *Store) prepare(ctx context.Context, migrating *pgx.ConnConfig, log *slog.Logger) error {
	if err := s.check(ctx, log); err != nil {
		return err
	}
	if err := s.refuseFormer(ctx); err != nil {
		return err
	}
	db := stdlib.OpenDB(*migrating)
	err := migrate(ctx, db, log)
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	err = pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error { return preparePartitions(ctx, tx, s.partitions) })
	if err != nil {
		return fmt.Errorf("prepare the partitions: %w", err)
	}
	return nil
}

// check refuses a server on which an answered write may not be on disk, and a pooler that is not configured as one.
func (s *Store) check(ctx context.Context, log *slog.Logger) error {
	var version int
	var synchronous, fsync string
	err := s.pool.QueryRow(ctx, "SELECT current_setting('server_version_num')::int, current_setting('synchronous_commit'), current_setting('fsync')").
		Scan(&version, &synchronous, &fsync)
	switch {
	case refusesSettings(err):
		return fmt.Errorf("%w: %w", ErrPooler, err)
	case err != nil:
		return fmt.Errorf("read its settings: %w", err)
	case version < minVersion:
		return fmt.Errorf("its version is %d; %d or later is needed", version/10000, minVersion/10000)
	case synchronous != "on" && synchronous != "remote_apply":
		return fmt.Errorf("synchronous_commit is %q and cannot be set to on: behind a connection pooler, set it for the role", synchronous)
	}
	if fsync != "on" {
		log.WarnContext(ctx, "PostgreSQL runs with fsync off: committed messages are lost when its machine fails")
	}
	return s.checkPooler(ctx, log)
}

// refuseFormer refuses a database whose events have no format: it was created before formats existed.
func (s *Store) refuseFormer(ctx context.Context) error {
	var former bool
	err := s.pool.QueryRow(ctx, `SELECT to_regclass('events') IS NOT NULL AND NOT EXISTS
		(SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass('events') AND attname = 'format')`).Scan(&former)
	if err != nil {
		return fmt.Errorf("inspect its schema: %w", err)
	}
	if former {
		return store.ErrFormer
	}
	return nil
}

func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	// If several services start at once, one migrates. The others check again every second for up to five minutes.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	if err := store.CheckSchema(ctx, provider, log); err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

func preparePartitions(ctx context.Context, tx pgx.Tx, partitions int) error {
	const insert = "INSERT INTO meta (key, value) VALUES ('partitions', $1) ON CONFLICT DO NOTHING"
	asked := strconv.Itoa(partitions)
	made, err := tx.Exec(ctx, insert, asked)
	if err != nil {
		return err
	}
	if made.RowsAffected() == 1 {
		const each = "INSERT INTO %s (partition) SELECT generate_series(0, $1::int - 1)"
		for _, table := range []string{"partitions", "leases"} {
			if _, err := tx.Exec(ctx, fmt.Sprintf(each, table), partitions); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "INSERT INTO meta (key, value) VALUES ('level', $1)", store.LevelText(conversation.MaxLevel())); err != nil {
			return err
		}
	}
	var stored, level string
	if err := tx.QueryRow(ctx, "SELECT value FROM meta WHERE key = 'partitions'").Scan(&stored); err != nil {
		return err
	}
	if stored != asked {
		return store.PartitionsError(stored, partitions)
	}
	if err := tx.QueryRow(ctx, selectLevel).Scan(&level); err != nil {
		return err
	}
	parsed, err := store.ParseLevel(level)
	if err == nil {
		err = store.CheckLevel(parsed)
	}
	if planted := store.PlantedIndexes(); err == nil && planted != "" {
		_, err = tx.Exec(ctx, planted)
	}
	return err
}

// Partitions returns the number of partitions that the database was created with.
func (s *Store) Partitions() int { return s.partitions }

// Ping writes a row, because a standby can also be read.
func (s *Store) Ping(ctx context.Context) error {
	return wrap("write a probe", s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, "INSERT INTO meta (key, value) VALUES ('probe', now()) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
		return err
	}))
}

// Close waits for running calls and closes all connections.
func (s *Store) Close() error {
	s.committer.close()
	s.news.close()
	s.pool.Close()
	return nil
}

// wrap adds the failed operation to an error, and classifies errors as temporary (ErrUnavailable) or permanent
// (ErrDefect).
func wrap(tried string, err error) error {
	var failed *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, store.ErrUnavailable):
		return fmt.Errorf("%s: %w", tried, err)
	case errors.As(err, &failed) && lasting(failed.Code):
		return fmt.Errorf("%s: %w: %w", tried, store.ErrDefect, err)
	}
	return fmt.Errorf("%s: %w: %w", tried, store.ErrUnavailable, err)
}

// lasting reports whether an error is caused by the data that was sent, so that a retry cannot help: invalid data or a
// violated constraint. Every other error counts as temporary: a restart, a standby, a full disk, a deadlock, a timeout.
// This includes a missing table or grant, which the operator must repair. A permanent error makes a command a dead
// letter, which a fault of the database must never do.
func lasting(code string) bool {
	return strings.HasPrefix(code, "22") || strings.HasPrefix(code, "23")
}
