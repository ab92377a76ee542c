package admincli

import (
	"cmp"
	"context"
	"maps"
	"time"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

type status struct{}

func (*status) Help() string {
	return `An overview of the installation. Partitions that are running and have no waiting commands are only counted.

  runnel admin status`
}

// Run prints the live instances.
func (*status) Run(ctx context.Context, c *Command, console *Console) error {
	return c.run(console, func(s *session) error {
		answer, err := s.admin.GetStatus(ctx, &adminv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		if err := s.print(answer, func(p *page) { drawStatus(p, answer) }); err != nil {
			return err
		}
		return complete(answer.GetMissing())
	})
}

func drawStatus(p *page, answer *adminv1.GetStatusResponse) {
	if len(answer.GetGateways()) == 0 {
		p.linef("no gateways: clients cannot connect")
	} else {
		drawGateways(p, answer.GetGateways())
	}
	p.gap()
	drawWorkers(p, answer.GetWorkers(), answer.GetPartitions(), versionsOf(answer))
	p.gap()
	drawBacklog(p, answer.GetPartitions())
	switch n := answer.GetDeadLetters(); {
	case n >= maxPage:
		p.linef("%d dead letters or more: see runnel admin dead-letters list", maxPage)
	case n > 0:
		p.linef("%s: see runnel admin dead-letters list", plural(n, "dead letter"))
	default:
		p.linef("no dead letters")
	}
}

func drawGateways(p *page, list []*gatewayv1.GetGatewayResponse) {
	p.row("GATEWAY", "CONNECTIONS", "USERS", "CONVERSATIONS", "QUEUED", "STATE", "VERSION", "STARTED")
	for _, g := range list {
		state := "serving"
		if g.GetDraining() {
			state = "draining"
		}
		p.row(g.GetGateway(), number(g.GetConnections()), number(g.GetUsers()), number(g.GetConversations()), size(g.GetQueuedBytes()),
			state, g.GetVersion(), p.moment(g.GetStartedMs()))
	}
}

// drawBacklog counts the partitions, and lists those that may need attention.
func drawBacklog(p *page, list []*adminv1.Partition) {
	var rest []*adminv1.Partition
	var lag uint64
	for _, partition := range list {
		lag += partition.GetLag()
		if !quiet(partition) {
			rest = append(rest, partition)
		}
	}
	p.linef("%s, %d running with no commands waiting; %s waiting in total", plural(len(list), "partition"), len(list)-len(rest), plural(lag, "command"))
	if len(rest) > 0 {
		p.gap()
		drawPartitions(p, rest)
		p.gap()
	}
}

// quiet reports whether a partition needs no attention.
func quiet(p *adminv1.Partition) bool { return p.GetState() == "running" && p.GetLag() == 0 }

// versionsOf returns the version of each worker. A server of an earlier version does not report versions.
func versionsOf(answer *adminv1.GetStatusResponse) map[string]string {
	versions := map[string]string{}
	maps.Copy(versions, answer.GetWorkerVersions())
	return versions
}

// drawWorkers lists workers with their partitions, and with their versions unless versions is nil.
func drawWorkers(p *page, workers []*historyv1.Worker, partitions []*adminv1.Partition, versions map[string]string) {
	if len(workers) == 0 {
		p.linef("no workers: nothing is committed")
		return
	}
	heads := []string{"WORKER", "PARTITIONS", "LAG", "LEASE LASTS"}
	if versions != nil {
		heads = append(heads, "VERSION")
	}
	p.row(heads...)
	for _, worker := range workers {
		var owned int
		var lag uint64
		for _, partition := range partitions {
			if partition.GetOwner() == worker.GetWorker() {
				owned++
				lag += partition.GetLag()
			}
		}
		row := []string{
			worker.GetWorker(), number(owned), number(lag), (time.Duration(worker.GetLiveForMs()) * time.Millisecond).Round(100 * time.Millisecond).String(),
		}
		if versions != nil {
			row = append(row, cmp.Or(versions[worker.GetWorker()], "not reported"))
		}
		p.row(row...)
	}
}
