package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/postgres"
	"github.com/runnelhq/runnel/services/history/store/sqlite"
)

// Config selects the database.
type Config struct {
	// Database is sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. Standalone defaults to a file in its data
	// directory; in the separate service the setting is required.
	Database string `help:"Database: sqlite:PATH, or postgres://USER@HOST/DATABASE. If the URL contains a password, set it by environment variable or settings file."`
	// DirectURL is the URL of PostgreSQL itself if Database leads to a connection pooler in transaction mode.
	DirectURL string `name:"direct-url" help:"URL of PostgreSQL itself, if the database URL leads to a connection pooler in transaction mode (PgBouncer). Used for migrations and for one connection that listens." placeholder:"URL"`
	// Connections is the maximum number of connections to PostgreSQL. Defaults to 20: one for each of 16 partitions, and
	// some for reading.
	Connections int `help:"Maximum number of connections to PostgreSQL." default:"20" range:"0..1000"`
	// Gather is the longest that a write to SQLite waits for others to share its commit. It waits only while writes crowd: at
	// least two others are expected in that time, and four have not arrived yet. With 1 ms nothing waits below 2,000 writes a
	// second; with 4,000 messages a second on a fast disk it saves a tenth of the CPU and costs 0.4 ms. Defaults to 0: never,
	// because on a disk whose commits take as long as that it saved nothing.
	Gather time.Duration `help:"SQLite: longest time that a write waits for others to share its commit, while at least two others are expected in that time. 0: never." default:"0" range:"0..20ms"`
	// EraseLedger is a file in which every erasure is recorded before it is committed. Keep it apart from the database and
	// its backups: runnel-history restored repeats the erasures in it. Defaults to none.
	EraseLedger string `help:"File that records every erasure before it is committed, so that the erasures can be repeated after an older backup is restored. Keep it apart from the database. Each history service has its own file." placeholder:"FILE"`
	// Timeout is the time limit of one call, even if its caller would wait longer. Defaults to 10 s.
	Timeout time.Duration `help:"Time limit of one call, even if its caller would wait longer." default:"10s" range:"0,1ms..10m"`
}

// Store is the database; see package store.
type Store = store.Store

// Open opens the database that cfg selects, or creates it. partitions is the installation's number of partitions, which
// never changes; a database that was created with another number is refused.
func Open(ctx context.Context, cfg Config, partitions int, log *slog.Logger) (Store, error) {
	if partitions < 1 || partitions > maxPartitions {
		return nil, fmt.Errorf("the number of partitions must be 1 to %d", maxPartitions)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	scheme, path, _ := strings.Cut(cfg.Database, ":")
	switch {
	case scheme == "sqlite" && path != "":
		return opened(sqlite.Open(ctx, sqlite.Config{Path: strings.TrimPrefix(path, "//"), Gather: cfg.Gather}, partitions, log))
	case scheme == "postgres" || scheme == "postgresql":
		return opened(postgres.Open(ctx, postgres.Config{URL: cfg.Database, DirectURL: cfg.DirectURL, Connections: cfg.Connections}, partitions, log))
	case cfg.Database == "":
		return nil, ErrNoDatabase
	default:
		return nil, errDatabase
	}
}

// ErrNoDatabase means that no database is set.
var ErrNoDatabase = errors.New("no database is set: set --history.database to sqlite:history.db, or postgres://user@host/database")

// errDatabase does not repeat the setting, because it may contain a password.
var errDatabase = errors.New("the database must be sqlite:PATH or postgres://USER@HOST/DATABASE")

// Validate checks the settings without opening the database. Whether a database is required depends on the program.
func (c Config) Validate() error {
	if err := settings.CheckRanges("history.", c); err != nil {
		return err
	}
	scheme, path, _ := strings.Cut(c.Database, ":")
	switch {
	case c.Database == "", scheme == "sqlite" && path != "":
		return nil
	case scheme == "postgres" || scheme == "postgresql":
		return postgres.CheckURL(c.Database)
	default:
		return errDatabase
	}
}

// opened returns an opened store, or no store: a nil pointer in an interface would not equal nil, and callers would close it.
func opened[S Store](s S, err error) (Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

const (
	maxPartitions  = 1024
	defaultTimeout = 10 * time.Second
)
