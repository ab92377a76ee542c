package history

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/runnelhq/runnel/services/history/ledger"
	"github.com/runnelhq/runnel/services/history/store/sqlite"
)

// Restore puts a backup in the place of a SQLite database that no program uses, after Restored has prepared a copy of it. It prints
// what it did, and where the former database is.
func Restore(ctx context.Context, cfg Config, partitions int, file string, ledgers []string, out io.Writer, log *slog.Logger) error {
	path, err := cfg.path()
	if err != nil {
		return err
	}
	former, err := sqlite.Restore(ctx, file, path, func(ctx context.Context, staged string) error {
		cfg.Database = "sqlite:" + staged
		return Prepare(ctx, cfg, partitions, ledgers, out, log)
	})
	if former != "" {
		fmt.Fprintf(out, "The former database is kept as %s. Remove it when you do not need it any more.\n", former)
	}
	return err
}

// Prepare opens a database that was restored by other means, and does what Restored does.
func Prepare(ctx context.Context, cfg Config, partitions int, ledgers []string, out io.Writer, log *slog.Logger) (err error) {
	store, err := Open(ctx, cfg, partitions, log)
	if err != nil {
		return fmt.Errorf("open the history: %w", err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return Restored(ctx, store, ledgers, out)
}

// Restored prepares a database that went back in time for its first reader: it erases again what the ledgers contain, then begins a
// new epoch in every partition, so that readers that are ahead get a fork. It prints what it did. Repeating it does no harm.
func Restored(ctx context.Context, store Store, ledgers []string, out io.Writer) error {
	for _, path := range ledgers {
		entries, damaged, err := ledger.Read(path)
		if err != nil {
			return fmt.Errorf("read the erase ledger: %w", err)
		}
		erased, err := ledger.Apply(ctx, store, entries)
		if err != nil {
			return fmt.Errorf("apply the erase ledger %s: %w", path, err)
		}
		fmt.Fprintf(out, "%s: %d erasures applied, %d events lost their content\n", path, len(entries), erased)
		if damaged > 0 {
			fmt.Fprintf(out, "%s: %d damaged lines were skipped\n", path, damaged)
		}
	}
	if len(ledgers) == 0 {
		fmt.Fprintln(out, "No erase ledger is set: content that was erased after the backup was made exists again.")
	}
	raised, err := store.RaiseEpochs(ctx)
	if err != nil {
		return err
	}
	for _, mark := range raised {
		fmt.Fprintf(out, "partition %d: epoch %d begins after sequence %d\n", mark.GetPartition(), mark.GetWatermark().GetEpoch(), mark.GetWatermark().GetSequence())
	}
	return nil
}
