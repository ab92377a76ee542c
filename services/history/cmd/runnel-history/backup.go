package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"google.golang.org/protobuf/encoding/protojson"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history"
)

// backupCommand is about backups.
type backupCommand struct {
	Begin backupBeginCommand `cmd:"" help:"Print where every partition stands, before a backup is begun."`
	Mark  backupMarkCommand  `cmd:"" help:"Record that a backup was made."`
}

// Help is shown by --help.
func (*backupCommand) Help() string {
	return `Delivery workers remove committed commands from the streams only when a backup of the database holds them, so that after a
restore the rest can be committed again. They learn of backups by these commands:

  runnel-history backup begin > marks.json && pg_dump … && runnel-history backup mark marks.json

The marks are those of when the backup was begun, so a backup that fails marks nothing. While no backup was ever marked, the
streams keep committed commands for one hour.`
}

// backupBeginCommand prints the present watermarks.
type backupBeginCommand struct{}

// Run prints them.
func (*backupBeginCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	return d.with(ctx, func(store history.Store) error {
		partitions, err := store.Leases(ctx)
		if err != nil {
			return err
		}
		request := &historyv1.MarkBackupRequest{}
		for _, partition := range partitions.GetLeases() {
			if partition.GetWatermark().GetStream() != "" {
				request.Marks = append(request.Marks, &historyv1.BackupMark{Partition: partition.GetPartition(), Watermark: partition.GetWatermark()})
			}
		}
		fmt.Fprintln(out, protojson.Format(request))
		return nil
	})
}

// backupMarkCommand marks a backup.
type backupMarkCommand struct {
	Marks string `arg:"" optional:"" help:"What backup begin printed. Without it the present watermarks are marked, for a backup that holds everything until now." type:"existingfile"`
}

// Run marks what the backup holds.
func (b *backupMarkCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	request := &historyv1.MarkBackupRequest{}
	if b.Marks != "" {
		text, err := os.ReadFile(b.Marks)
		if err != nil {
			return err
		}
		if err := protojson.Unmarshal(text, request); err != nil {
			return fmt.Errorf("%s is not what backup begin prints: %w", b.Marks, err)
		}
		if len(request.GetMarks()) == 0 {
			fmt.Fprintln(out, "Nothing was committed when the backup was begun, so there is nothing to mark.")
			return nil
		}
	}
	return d.with(ctx, func(store history.Store) error {
		marks, err := store.MarkBackup(ctx, request.GetMarks())
		if err != nil {
			return err
		}
		for _, mark := range marks {
			fmt.Fprintf(out, "partition %d: sequence %d of stream %s in epoch %d\n", mark.GetPartition(), mark.GetWatermark().GetSequence(),
				mark.GetWatermark().GetStream(), mark.GetWatermark().GetEpoch())
		}
		return nil
	})
}
