package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/runnelhq/runnel/services/standalone"
)

type backupCommand struct {
	File            string `arg:"" help:"File for the backup, which must not exist." type:"path"`
	standalone.Data `embed:""`
}

// Help is the long text of --help.
func (*backupCommand) Help() string {
	return `Copies the database into one file, while the server runs or not, and tells the server which commands its streams no longer need
for a restore. Keep the file on another machine. It holds all content; only its owner can read it.

  runnel backup /backups/runnel-$(date +%F).db`
}

// Run makes a backup.
func (b *backupCommand) Run(ctx context.Context) error { return b.Backup(ctx, b.File, os.Stdout) }

type restoreCommand struct {
	File            string `arg:"" optional:"" help:"A backup. Without it, the database is the one in the data directory, which was put back by other means." type:"path"`
	standalone.Data `embed:""`
}

// Help is the long text of --help.
func (*restoreCommand) Help() string {
	return `Stop the server first. The backup takes the place of the database, which is kept under another name; the streams stay, so that
the server commits again what was sent since the backup. Content that was erased meanwhile is erased again before anybody can
read it. Clients that are ahead are told what was undone, and send again what they can.

If you copied or took a snapshot of the whole data directory and put it back, run this without a file before the server starts.`
}

// Run restores a backup.
func (r *restoreCommand) Run(ctx context.Context) error {
	return r.Restore(ctx, r.File, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}
