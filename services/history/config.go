package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/postgres"
	"github.com/runnelhq/runnel/services/history/store/sqlite"
)

// Config says where the history is kept.
type Config struct {
	// Database is sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. Standalone defaults to a file in its data directory, the
	// single service asks for it.
	Database string `help:"Database: sqlite:PATH, or postgres://USER@HOST/DATABASE. Set a URL with a password by environment variable or settings file."`
	// Connections is the most connections to PostgreSQL. Defaults to 20: one for each of 16 partitions, and some for reading.
	Connections int `help:"Most connections to PostgreSQL." default:"20"`
	// EraseLedger is a file in which every erasure is recorded before it is committed. Keep it apart from the database and its
	// backups: runnel-history restored erases again by it. Empty for none, the default.
	EraseLedger string `help:"File that records every erasure before it is committed, so that the erasures can be repeated after an older backup is restored. Keep it apart from the database. Each history service has its own file." placeholder:"FILE"`
	// Timeout is the longest that one call may take, also when its caller would wait longer. Defaults to 10 s.
	Timeout time.Duration `help:"Longest that one call may take, also when its caller would wait longer." default:"10s"`
}

// Store is where the history is kept; see the package store.
type Store = store.Store

// Open opens the database that cfg names, or makes it. partitions is the installation's number of partitions, which never
// changes; a database that was made with another is refused.
func Open(ctx context.Context, cfg Config, partitions int, log *slog.Logger) (Store, error) {
	if partitions < 1 || partitions > maxPartitions {
		return nil, fmt.Errorf("the number of partitions must be 1 to %d", maxPartitions)
	}
	if cfg.Connections < 0 || cfg.Connections > maxConnections {
		return nil, fmt.Errorf("the number of connections to PostgreSQL must be 1 to %d", maxConnections)
	}
	if cfg.Timeout < 0 {
		return nil, errors.New("the time that a call may take must not be negative")
	}
	scheme, path, _ := strings.Cut(cfg.Database, ":")
	switch {
	case scheme == "sqlite" && path != "":
		return sqlite.Open(ctx, sqlite.Config{Path: strings.TrimPrefix(path, "//")}, partitions, log)
	case scheme == "postgres" || scheme == "postgresql":
		return postgres.Open(ctx, postgres.Config{URL: cfg.Database, Connections: cfg.Connections}, partitions, log)
	case cfg.Database == "":
		return nil, errors.New("no database is set: give --history.database sqlite:history.db, or postgres://user@host/database")
	default:
		// Not repeated: whatever it is, there may be a password in it.
		return nil, errors.New("the database must be sqlite:PATH or postgres://USER@HOST/DATABASE")
	}
}

const (
	maxPartitions  = 1024
	maxConnections = 1000
	defaultTimeout = 10 * time.Second
)
