package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/runnelhq/runnel/services/history"
)

// Data are the settings for the location of a standalone server's data. They have the same names as in Config, so that
// the same environment and settings file can be used.
type Data struct {
	DataDir string `help:"The server's data directory." default:"./runnel-data" type:"path"`
	NATS    struct {
		Partitions int `help:"Number of partitions. Fixed for the life of an installation." default:"16" range:"1..1024"`
	} `embed:"" prefix:"nats."`
	History history.Config `embed:"" prefix:"history."`
}

// Backup copies the database into a new file and records the copy's watermarks. The server may be running.
func (d Data) Backup(ctx context.Context, file string, out io.Writer) error {
	if _, err := history.Backup(ctx, historyIn(d.DataDir, d.History), file); err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("look at the backup: %w", err)
	}
	_, err = fmt.Fprintf(out, "%s is complete: %d bytes, with everything that was committed when the copy began.\n", file, info.Size())
	return err
}

// Restore replaces the database by a backup. Without a file, the operator has already restored the data directory. The
// server must not run.
func (d Data) Restore(ctx context.Context, file string, out io.Writer, log *slog.Logger) (err error) {
	cfg := historyIn(d.DataDir, d.History)
	if err := os.MkdirAll(d.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	lock, err := lockDir(d.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	ledgers, err := d.ledgers(cfg)
	if err != nil {
		return err
	}
	if file != "" {
		err = history.Restore(ctx, cfg, d.NATS.Partitions, file, ledgers, out, log)
	} else {
		err = d.putBack(ctx, cfg, ledgers, out, log)
	}
	if err == nil {
		_, err = fmt.Fprintln(out, "Done. Start runnel. It commits again what its streams hold, and tells clients what was undone.")
	}
	return err
}

// putBack prepares a database that is already in the data directory.
func (d Data) putBack(ctx context.Context, cfg history.Config, ledgers []string, out io.Writer, log *slog.Logger) error {
	if path := filepath.Join(d.DataDir, databaseName); cfg.Database == "sqlite:"+path { // opening a missing database would create it
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("there is no database to restore: %w", err)
		}
	}
	return history.Prepare(ctx, cfg, d.NATS.Partitions, ledgers, out, log)
}

// ledgers returns the erase ledger. A configured ledger must exist. The ledger in the data directory is created by the
// first erasure, or when the server starts.
func (d Data) ledgers(cfg history.Config) ([]string, error) {
	if cfg.EraseLedger == "" {
		return nil, nil
	}
	if _, err := os.Stat(cfg.EraseLedger); errors.Is(err, fs.ErrNotExist) && d.History.EraseLedger == "" {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("find the erase ledger: %w", err)
	}
	return []string{cfg.EraseLedger}, nil
}

const (
	databaseName = "history.db"
	ledgerName   = "erased.jsonl"
)

// historyIn returns the history settings. If no database is set, the database and the erase ledger are in the data
// directory.
func historyIn(dataDir string, cfg history.Config) history.Config {
	if cfg.Database != "" {
		return cfg
	}
	cfg.Database = "sqlite:" + filepath.Join(dataDir, databaseName)
	if cfg.EraseLedger == "" {
		cfg.EraseLedger = filepath.Join(dataDir, ledgerName)
	}
	return cfg
}
