package main

import (
	"context"
	"fmt"
	"io"

	"github.com/runnelhq/runnel/services/history"
)

// restoredCommand is for a database that was restored to an earlier state.
type restoredCommand struct {
	Ledgers []string `arg:"" optional:"" name:"ledger" help:"Further erase ledgers to apply, in addition to --history.erase-ledger: those of the other history services." type:"existingfile"`
}

// Help is shown by --help.
func (*restoredCommand) Help() string {
	return `A database cannot know that it went back in time: that it was restored from a backup, or that it is a replica that had not
received everything. Readers and clients that are ahead of it would silently wait for events that never come.

What to do:
  1. Stop all gateways, delivery workers and history services.
  2. Restore the database.
  3. Run "runnel-history restored" with the settings of the history service. It
       - repeats the erasures in the erase ledger, so that no erased content can be read,
       - begins a new epoch in every partition, so that readers that are ahead get a fork.
  4. Start the services. Delivery workers commit the commands after the backup again that are still in the streams.

Running it twice does no harm.`
}

// Run applies the ledgers, then raises the epochs.
func (r *restoredCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	return d.with(ctx, func(store history.Store) error {
		ledgers := r.Ledgers
		if d.History.EraseLedger != "" {
			ledgers = append([]string{d.History.EraseLedger}, ledgers...)
		}
		if err := history.Restored(ctx, store, ledgers, out); err != nil {
			return err
		}
		fmt.Fprintln(out, "Done. Start the services.")
		return nil
	})
}
