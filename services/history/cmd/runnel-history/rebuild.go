package main

import (
	"context"
	"fmt"
	"io"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/history"
	"github.com/runnelhq/runnel/services/history/rebuild"
)

// rebuildCommand rebuilds the views.
type rebuildCommand struct {
	Verbose bool `help:"Print every conversation with the seq up to which its views were rebuilt."`
}

// Help is shown by --help.
func (*rebuildCommand) Help() string {
	return `The logs are authoritative. The views of edits, deletions, threads and reactions are made from them when messages are
committed. This command rebuilds all views, conversation by conversation. It is safe while the services run: readers see
the old rows of a conversation or the new ones, and both are complete. It is needed only if rows were damaged, or if the
notes of a release ask for it.`
}

// Run rebuilds the views.
func (r *rebuildCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	return d.with(ctx, func(store history.Store) error {
		result, err := rebuild.All(ctx, store, func(id ids.Conversation, head ids.Seq) {
			if r.Verbose {
				fmt.Fprintf(out, "%s: seq %d\n", id, head)
			}
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d conversations with %d events: %d view rows and %d reactions\n", result.Conversations, result.Events, result.Rows, result.Reactions)
		return nil
	})
}
