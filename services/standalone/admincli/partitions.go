package admincli

import (
	"context"
	"fmt"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
)

type partitions struct {
	List listPartitions `cmd:"" help:"List partitions with owner, lag and state."`
	Move movePartition  `cmd:"" help:"Move a partition to another worker."`
}

type listPartitions struct{}

func (*listPartitions) Help() string {
	return `LAG is the number of waiting commands. A stopped partition shows the reason; nothing in its conversations is committed until
the cause is removed.

  runnel admin partitions list`
}

// Run lists partitions.
func (*listPartitions) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.ListPartitions(ctx, &adminv1.ListPartitionsRequest{})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) {
			drawPartitions(p, answer.GetPartitions())
			p.gap()
			drawWorkers(p, answer.GetWorkers(), answer.GetPartitions(), nil)
		}); err != nil {
			return err
		}
		return complete(answer.GetMissing())
	})
}

func drawPartitions(p *page, list []*adminv1.Partition) {
	p.row("PARTITION", "OWNER", "WANTED ON", "WATERMARK", "STREAM LAST", "LAG", "STATE")
	for _, at := range list {
		last := ""
		if at.GetStreamLast() > 0 {
			last = number(at.GetStreamLast())
		}
		p.row(number(at.GetPartition()), at.GetOwner(), at.GetWanted(), number(at.GetWatermark()), last, number(at.GetLag()), at.GetState())
	}
}

type movePartition struct {
	Partition uint32 `arg:"" help:"Number of the partition."`
	Worker    string `arg:"" optional:"" help:"Name of the worker, as shown by partitions list."`
	Any       bool   `help:"Let any worker own the partition again."`
}

func (*movePartition) Help() string {
	return `The worker keeps the partition until it stops. Then another worker takes over, and the request is deleted.

  runnel admin partitions move 3 worker-2
  runnel admin partitions move 3 --any`
}

// Run moves a partition.
func (m *movePartition) Run(ctx context.Context, c *Command, console *Console) error {
	if (m.Worker == "") == !m.Any {
		return usage("name the worker or set --any, but not both")
	}
	return c.run(console, func(s *session) error {
		answer, err := s.admin.MovePartition(ctx, &adminv1.MovePartitionRequest{Partition: m.Partition, Worker: m.Worker})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) {
			switch {
			case m.Any:
				p.linef("any worker may own partition %d", m.Partition)
			case answer.GetMoved():
				p.linef("partition %d is on %s", m.Partition, m.Worker)
			}
		}); err != nil {
			return err
		}
		if !m.Any && !answer.GetMoved() {
			return &outcome{ExitIncomplete, fmt.Errorf("the request is stored, but partition %d is not on %s yet; see runnel admin partitions list", m.Partition, clean(m.Worker))}
		}
		return nil
	})
}
