package main

import (
	"context"
	"fmt"
	"io"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/history"
)

// acceptLossCommand makes a partition that stopped at a hole continue.
type acceptLossCommand struct {
	Partition uint32 `arg:"" help:"Partition that stopped."`
	Through   uint64 `required:"" help:"The last lost stream sequence: one below the first that the stream still contains. The worker's alarm contains both numbers." range:"1.."`
}

// Help is shown by --help.
func (*acceptLossCommand) Help() string {
	return `A partition stops with an alarm when its stream lacks commands that were never committed. Look for them first: a restored
broker or a backup of its files may still have them. Clients keep messages that were accepted and not committed in their
outbox, and send them again.

If the commands are lost for good, this command moves the partition's watermark over the hole, in a new epoch, and records the lost
range in the table losses. The delivery worker that owns the partition continues at once.`
}

// Run accepts the loss.
func (a *acceptLossCommand) Run(ctx context.Context, d *database, out io.Writer) error {
	if int(a.Partition) >= d.NATS.Partitions {
		return fmt.Errorf("there are partitions 0 to %d", d.NATS.Partitions-1)
	}
	return d.with(ctx, func(store history.Store) error {
		loss, err := store.AcceptLoss(ctx, ids.Partition(a.Partition), ids.Sequence(a.Through))
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "partition %d: sequences %d to %d of stream %s are recorded as lost; epoch %d begins\n", loss.Partition, loss.First, loss.Last, loss.Stream, loss.Epoch)
		return nil
	})
}
