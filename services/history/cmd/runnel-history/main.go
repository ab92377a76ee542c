// Command runnel-history runs the history service with a SQLite file or PostgreSQL. With PostgreSQL, several can run at
// the same time. It also contains the operators' commands that need the database itself: after a restore, after a loss,
// and for backups.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/history"
)

// cli lists the commands. Without a command, the service runs.
type cli struct {
	database `embed:""`

	Serve      serveCommand      `cmd:"" default:"withargs" help:"Run the history service (the default)."`
	Restored   restoredCommand   `cmd:"" help:"Run this once after the database was restored from a backup or failed over, before the services start."`
	AcceptLoss acceptLossCommand `cmd:"" help:"Accept that commands were lost from a stream, so that the stopped partition continues."`
	Rebuild    rebuildCommand    `cmd:"" help:"Rebuild all views (edits, deletions, threads, reactions) from the logs, while the services run."`
	Backup     backupCommand     `cmd:"" help:"Record backups of the database."`
}

// database selects the database of a command.
type database struct {
	// NATS contains the number of partitions. The history service does not use NATS; the setting has the same name as in
	// the other services, because the number must be the same in all of them.
	NATS struct {
		Partitions int `help:"Number of partitions. Fixed for the life of an installation." default:"16" range:"1..1024"`
	} `embed:"" prefix:"nats."`
	History history.Config `embed:"" prefix:"history."`
}

// open opens the database for a command other than the service. Logs go to standard error.
func (d *database) open(ctx context.Context) (history.Store, error) {
	return history.Open(ctx, d.History, d.NATS.Partitions, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
}

func main() {
	var c cli
	command := settings.Parse("runnel-history", "Stores the logs of conversations, cursors, and the watermark and lease of each partition.", &c)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, &c, command, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "runnel-history:", err)
		os.Exit(1)
	}
}

// run runs the selected command.
func run(ctx context.Context, c *cli, command *kong.Context, out io.Writer) error {
	command.BindTo(ctx, (*context.Context)(nil))
	command.BindTo(out, (*io.Writer)(nil))
	command.Bind(&c.database)
	return command.Run()
}

// with opens the database, calls a function and closes it.
func (d *database) with(ctx context.Context, run func(history.Store) error) (err error) {
	store, err := d.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return run(store)
}
