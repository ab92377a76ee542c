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

// backupCommand contains the commands about backups.
type backupCommand struct {
	Begin backupBeginCommand `cmd:"" help:"Print the watermark of every partition, before a backup is started."`
	Mark  backupMarkCommand  `cmd:"" help:"Record that a backup was made."`
}

// Help is shown by --help.
func (*backupCommand) Help() string {
	return `Delivery workers purge committed commands from the streams only when a backup of the database contains them, so that after a
restore the others can be committed again. These commands record a backup:

  runnel-history backup begin > marks.json && pg_dump … && runnel-history backup mark marks.json

The marks are taken before the backup starts and recorded only if it succeeds. Until a first backup is marked, the streams
keep committed commands for one hour.`
}

// backupBeginCommand prints the current watermarks.
type backupBeginCommand struct{}

// Run prints the current watermarks.
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
	Marks string `arg:"" optional:"" help:"Output of backup begin. Without it the current watermarks are marked, for a backup that contains everything up to now." type:"existingfile"`
}

// Run marks the contents of the backup.
func (b *backupMarkCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	request := &historyv1.MarkBackupRequest{}
	if b.Marks != "" {
		text, err := os.ReadFile(b.Marks)
		if err != nil {
			return err
		}
		if err := protojson.Unmarshal(text, request); err != nil {
			return fmt.Errorf("%s is not output of backup begin: %w", b.Marks, err)
		}
		if len(request.GetMarks()) == 0 {
			fmt.Fprintln(out, "Nothing was committed when the backup was started, so there is nothing to mark.")
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
