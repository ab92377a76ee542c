// Package sqlite is the store in one SQLite file, for a single machine, in pure Go. Every answered write is on disk (WAL,
// synchronous=FULL); writes that arrive together share one commit (see writer). Only one history service at a time may
// write the file. Several services and other programs may read it.
package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/history/store"
)

// Config selects the database.
type Config struct {
	// Path is the file, which is created if it does not exist. Required.
	Path string
	// Gather is the longest time that a write waits for other writes to share its commit, while writes are frequent. The
	// default 0 means that no write waits.
	Gather time.Duration
	// Now is the clock of leases and dead letters. Defaults to time.Now.
	Now func() time.Time
}

// Store is the store in a SQLite file.
type Store struct {
	writer       *writer
	checkpointer *checkpointer
	// readers is a separate pool, so that reads never wait for a commit (WAL permits both at the same time).
	readers    *sql.DB
	read       readStatements
	now        func() time.Time
	path       string
	partitions int
	bells      store.Bells
}

var _ store.Store = (*Store)(nil)

// readConnections is the size of the read pool: reads use the CPU, so more connections than cores of a typical SQLite
// machine do not help.
const readConnections = 4

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens or creates the database and updates its schema. partitions must be the number with which the database was
// created.
func Open(ctx context.Context, cfg Config, partitions int, log *slog.Logger) (_ *Store, err error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("find the database file %q: %w", cfg.Path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make the database's directory: %w", err)
	}
	// Create the file here, so that only its owner can read messages; SQLite gives the files next to it the same mode.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the database file: %w", err)
	}
	if err := file.Close(); err != nil {
		return nil, fmt.Errorf("close the database file: %w", err)
	}
	s := &Store{now: cfg.Now, path: path, partitions: partitions}
	if s.now == nil {
		s.now = time.Now
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open the SQLite database %s: %w", path, err), s.Close())
		}
	}()

	db, err := sql.Open("sqlite", dsn(path, writePragmas))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := prepareSchema(ctx, db, partitions, log); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	if s.writer, err = startWriter(ctx, db, cfg.Gather); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	copying, err := sql.Open("sqlite", dsn(path, writePragmas))
	if err != nil {
		return nil, err
	}
	copying.SetMaxOpenConns(1)
	s.checkpointer = startCheckpointer(ctx, copying, s.writer, log)
	if s.readers, err = sql.Open("sqlite", dsn(path, readPragmas)); err != nil {
		return nil, err
	}
	s.readers.SetMaxOpenConns(readConnections)
	s.readers.SetMaxIdleConns(readConnections)
	if s.read, err = prepareReads(preparing(ctx, s.readers)); err != nil {
		return nil, err
	}
	log.InfoContext(ctx, "history is in SQLite", "path", path, "partitions", partitions)
	return s, nil
}

// Pragmas of the writer. The page cache (64 MiB) holds the pages that a busy installation appends to: with SQLite's default
// of 2 MiB most inserts would first have to read a page.
// wal_autocheckpoint takes effect only if the checkpointer is too slow.
// temp_store keeps the data of savepoints in memory.
var writePragmas = []string{
	"busy_timeout(5000)", "journal_mode(wal)", synchronous, "cache_size(-65536)", fmt.Sprintf("wal_autocheckpoint(%d)", autocheckpointPages),
	"journal_size_limit(67108864)", "temp_store(memory)",
}

var readPragmas = []string{"busy_timeout(5000)", "query_only(on)", "cache_size(-16384)", "temp_store(memory)"}

func dsn(path string, pragmas []string) string {
	uri := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	return uri.String()
}

func prepareSchema(ctx context.Context, db *sql.DB, partitions int, log *slog.Logger) error {
	var journal string
	var level int
	if err := errors.Join(
		db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&journal),
		db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level),
	); err != nil {
		return fmt.Errorf("read its settings: %w", err)
	}
	if journal != "wal" || level != synchronousLevel {
		return fmt.Errorf("journal_mode is %s and synchronous %d, not wal and %d: is it on a file system without shared memory?", journal, level, synchronousLevel)
	}
	if err := refuseFormer(ctx, db); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	migrate, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return fmt.Errorf("prepare migrations: %w", err)
	}
	if err := store.CheckSchema(ctx, migrate, log); err != nil {
		return err
	}
	if _, err := migrate.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return preparePartitions(ctx, db, partitions)
}

// refuseFormer refuses a database whose events have no format: it was created before formats existed.
func refuseFormer(ctx context.Context, db *sql.DB) error {
	var columns, format int
	err := db.QueryRowContext(ctx, "SELECT count(*), count(*) FILTER (WHERE name = 'format') FROM pragma_table_info('events')").Scan(&columns, &format)
	if err != nil {
		return fmt.Errorf("inspect its schema: %w", err)
	}
	if columns > 0 && format == 0 {
		return store.ErrFormer
	}
	return nil
}

func preparePartitions(ctx context.Context, db *sql.DB, partitions int) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }()
	var stored string
	err = tx.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'partitions'").Scan(&stored)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('partitions', ?)", strconv.Itoa(partitions)); err != nil {
			return fmt.Errorf("store the number of partitions: %w", err)
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta (key, value) VALUES ('level', ?)", store.LevelText(conversation.MaxLevel())); err != nil {
			return fmt.Errorf("store the protocol level: %w", err)
		}
		for p := range partitions {
			if _, err := tx.ExecContext(ctx, "INSERT INTO partitions (partition) VALUES (?)", p); err != nil {
				return fmt.Errorf("make partition %d: %w", p, err)
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO leases (partition) VALUES (?)", p); err != nil {
				return fmt.Errorf("make the lease of partition %d: %w", p, err)
			}
		}
	case err != nil:
		return fmt.Errorf("read the number of partitions: %w", err)
	case stored != strconv.Itoa(partitions):
		return store.PartitionsError(stored, partitions)
	}
	var level string
	if err := tx.QueryRowContext(ctx, selectLevel).Scan(&level); err != nil {
		return fmt.Errorf("read the protocol level: %w", err)
	}
	switch parsed, err := store.ParseLevel(level); {
	case err != nil:
		return err
	default:
		if err := store.CheckLevel(parsed); err != nil {
			return err
		}
	}
	if planted := store.PlantedIndexes(); planted != "" {
		if _, err := tx.ExecContext(ctx, planted); err != nil {
			return fmt.Errorf("plant a bug: %w", err)
		}
	}
	return tx.Commit()
}

// Partitions returns the number of partitions that the database was created with.
func (s *Store) Partitions() int { return s.partitions }

// Ping reads a row, and writes a row through the writer.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.Level(ctx); err != nil {
		return err
	}
	return wrap("write a probe", s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.statements.probe.ExecContext(ctx, s.now().UTC().Format(time.RFC3339Nano))
		return err
	}, nil))
}

// Stats returns the statistics of the file and of the connections for reading.
func (s *Store) Stats() store.Stats {
	readers := s.readers.Stats()
	return store.Stats{
		Backend: "sqlite",
		Busy:    readers.InUse, Open: readers.OpenConnections, MaxConnections: readers.MaxOpenConnections,
		Waiting: len(s.writer.queue),
		Commits: s.writer.commits.Load(), Committing: int(s.writer.committing.Load()),
		File: store.FileStats{
			DatabaseBytes: size(s.path), LogBytes: size(s.path + "-wal"),
			Copies: s.checkpointer.copies.Load(), FailedCopies: s.checkpointer.failed.Load(),
		},
	}
}

// size returns the size of a file; 0 if it does not exist.
func size(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close commits the queued writes, waits for the writer, and closes the file.
func (s *Store) Close() error {
	var errs []error
	// Close the readers first: the last connection to close copies the WAL into the file, which a reader may not do.
	if s.readers != nil {
		errs = append(errs, s.readers.Close())
	}
	if s.checkpointer != nil {
		errs = append(errs, s.checkpointer.close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	return errors.Join(errs...)
}

// wrap adds the failed operation to an error, and classifies errors as temporary (ErrUnavailable) or permanent
// (ErrDefect).
func wrap(tried string, err error) error {
	var failed *sqlite.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, store.ErrUnavailable):
		return fmt.Errorf("%s: %w", tried, err)
	case errors.As(err, &failed) && lasting(failed.Code()):
		return fmt.Errorf("%s: %w: %w", tried, store.ErrDefect, err)
	}
	return fmt.Errorf("%s: %w: %w", tried, store.ErrUnavailable, err)
}

// lasting reports whether an error is caused by the data that was written, so that a retry cannot help. Every other error
// counts as temporary, above all a full or failing disk. A permanent error makes a command a dead letter, which a fault
// of the database must never do.
func lasting(code int) bool {
	switch code & 0xff { // the other bits distinguish errors of this kind
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE:
		return true
	}
	return false
}

// broken wraps an error of a statement that controls the transaction. Whatever its code, the write is not its cause, so
// it counts as temporary.
func broken(tried string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w: %w", tried, store.ErrUnavailable, err)
}

// violates reports whether a statement failed because a key already exists.
func violates(err error) bool {
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		return false
	}
	code := failed.Code()
	return code == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || code == sqlite3.SQLITE_CONSTRAINT_UNIQUE
}
