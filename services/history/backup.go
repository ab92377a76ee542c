package history

import (
	"context"
	"errors"
	"strings"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/sqlite"
)

// ErrNotSQLite means that a database is not one file, so that its own tools back it up and restore it.
var ErrNotSQLite = errors.New("the database is not SQLite: back it up and restore it with pg_dump and pg_restore, and see deploy/README.md for what belongs around them")

// Backup copies a SQLite database into a new file while a server may use it, and records what the copy contains. If only the
// recording fails, the marks are returned with the error.
func Backup(ctx context.Context, cfg Config, file string) ([]*historyv1.BackupMark, error) {
	path, err := cfg.path()
	if err != nil {
		return nil, err
	}
	return sqlite.Backup(ctx, path, file)
}

// path returns the file of a SQLite database.
func (c Config) path() (string, error) {
	switch path, isSQLite := strings.CutPrefix(c.Database, "sqlite:"); {
	case c.Database == "":
		return "", ErrNoDatabase
	case !isSQLite:
		return "", ErrNotSQLite
	default:
		return strings.TrimPrefix(path, "//"), nil
	}
}
