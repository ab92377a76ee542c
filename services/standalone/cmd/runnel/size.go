package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"text/tabwriter"

	"github.com/runnelhq/runnel/services/standalone/sizing"
)

// sizeCommand computes what a load needs. It talks to no server.
type sizeCommand struct {
	Connections   float64 `help:"Clients connected at the same time. Each costs memory in a gateway, and a little CPU for heartbeats." default:"10000" range:"1..1000000000000"`
	Messages      float64 `help:"Messages per second, all conversations together. They cost CPU in every part, and disk in PostgreSQL." default:"1000" range:"0.001..1000000000000"`
	Conversations float64 `help:"Conversations whose members are connected. Each costs memory in the gateways, and a subscription in NATS." default:"20000" range:"1..1000000000000"`
	Members       float64 `help:"Members of a conversation, all connected and on different gateways: the worst case." default:"4" range:"1..1000000000000"`
	Days          float64 `help:"Days for which messages are kept." default:"30" range:"0.001..1000000000000"`
	StreamHours   float64 `help:"Hours for which NATS keeps committed commands: until the next backup." default:"24" range:"0.001..1000000000000"`
	Minutes       float64 `help:"Minutes that a connection lasts. Phones reconnect often." default:"30" range:"0.001..1000000000000"`

	Cores       float64 `help:"Processors of a machine." default:"16" range:"0.001..1000000000000" group:"Machines"`
	MemoryGiB   float64 `name:"memory-gib" help:"Memory of a machine, in GiB." default:"64" range:"1..1000000000000" group:"Machines"`
	DiskGiB     float64 `name:"disk-gib" help:"Disk of a machine, in GiB." default:"8192" range:"1..1000000000000" group:"Machines"`
	DiskMBs     float64 `name:"disk-mb" help:"MB per second that a disk can write." default:"1000" range:"1..1000000000000" group:"Machines"`
	NetworkMBs  float64 `name:"network-mb" help:"MB per second that a machine can send." default:"1200" range:"1..1000000000000" group:"Machines"`
	Utilization float64 `help:"Share of processors, network and disk speed that may be used on average; the rest is for peaks and failures." default:"0.5" range:"0.01..1" group:"Machines"`

	Partitions   float64 `help:"Partitions of the installation. One worker at a time works on a partition, in order." default:"16" range:"1..1000000000000" group:"Division"`
	Replicas     float64 `help:"Servers of a NATS cluster; each has a copy of every stream." default:"3" range:"1..1000000000000" group:"Division"`
	NATSClusters float64 `name:"nats-clusters" help:"NATS clusters that share the partitions. More than 1 is not supported yet: see deploy/SCALING.md." default:"1" range:"1..1000000000000" group:"Division"`
	Databases    float64 `help:"PostgreSQL servers that share the partitions. More than 1 is not supported yet: see deploy/SCALING.md." default:"1" range:"1..1000000000000" group:"Division"`
	Divide       bool    `help:"Choose the smallest numbers of partitions, NATS clusters and databases on which the load fits." group:"Division"`

	JSON bool `name:"json" help:"Print the plan as JSON, with what the processors of each part are for and all limits."`
}

// Help is the text below the usage line.
func (*sizeCommand) Help() string {
	return `Computes what an installation needs: processors, memory, disks and network of each part, and which limit it meets first. It computes
with figures of the benchmark that this program contains (its date and machine are printed), and is good to a factor of about two. The
CPU was measured at thousands of messages per second, where messages share commits; at low rates a message costs several times as much.

    runnel size                                                            a small installation
    runnel size --messages 5000 --days 30                                  which limit is met first?
    runnel size --connections 1e6 --messages 1e5 --conversations 1e7 --days 30 --divide

Gateways, delivery workers and history services are added freely. Limits are what cannot be enlarged that way: one PostgreSQL server,
one NATS cluster, and the order within a partition. deploy/SCALING.md explains the model.`
}

// Run prints the plan.
func (s *sizeCommand) Run() error { return s.run(os.Stdout) }

func (s *sizeCommand) run(out io.Writer) error {
	figures, err := sizing.Measured()
	if err != nil {
		return err
	}
	load := sizing.Load{
		Connections: s.Connections, Messages: s.Messages, Conversations: s.Conversations, Members: s.Members, Days: s.Days,
		StreamHours: s.StreamHours, Minutes: s.Minutes,
	}
	machines := sizing.Machines{
		Cores: s.Cores, MemoryGiB: s.MemoryGiB, DiskGiB: s.DiskGiB, NetworkMBs: s.NetworkMBs, DiskMBs: s.DiskMBs, Utilization: s.Utilization,
		Partitions: s.Partitions, Replicas: s.Replicas, NATSClusters: s.NATSClusters, Databases: s.Databases,
	}
	plan, err := sizing.Compute(figures, load, machines)
	if err == nil && s.Divide {
		machines, _ = sizing.Divide(figures, load, machines)
		plan, err = sizing.Compute(figures, load, machines)
	}
	if err != nil {
		return fmt.Errorf("compute a plan: %w", err)
	}
	if s.JSON {
		if err := json.NewEncoder(out).Encode(plan); err != nil {
			return fmt.Errorf("print the plan: %w", err)
		}
		return nil
	}
	return printPlan(out, plan, figures)
}

// shownLimits is how many limits are printed for people.
const shownLimits = 4

func printPlan(out io.Writer, plan *sizing.Plan, figures sizing.Figures) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // a tabwriter keeps the error for Flush
	line("part\tmachines\tbusy cores\tmemory GiB\tdisk GiB\tsent MB/s\twritten MB/s\t")
	for _, part := range append(plan.Parts, plan.Total()) {
		line("%s\t%s\t%s\t%s\t%s\t%s\t%s\t", part.Name, short(part.Machines), short(part.Cores), short(part.MemoryGiB), short(part.DiskGiB), short(part.NetworkMBs), short(part.DiskMBs))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the plan: %w", err)
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	m := plan.Machines
	line("\nPartitions: %s. NATS clusters: %s, of %s servers each. PostgreSQL servers: %s. The limits that come first:",
		short(m.Partitions), short(m.NATSClusters), short(m.Replicas), short(m.Databases))
	for _, limit := range plan.Limits[:shownLimits] {
		verdict := "used"
		if limit.Use > 1 {
			verdict = "EXCEEDED"
		}
		line("  %s\t%s %%\t%s\tmoved by %s", limit.What, short(100*limit.Use), verdict, limit.Remedy)
	}
	if !plan.Fits() {
		line("\nThe load does not fit. --divide chooses a division on which it does.")
	}
	if m.Databases > 1 || m.NATSClusters > 1 {
		line("\nSeveral PostgreSQL servers or NATS clusters are a plan: this version does not support them. See deploy/SCALING.md.")
	}
	line("\nFigures: %s, commit %s, %d cores of %s. Good to a factor of about two: measure before you buy.\n"+
		"At low rates a message costs several times as much CPU, because messages share no commits.",
		figures.Date.Format("2006-01-02"), figures.Commit, figures.Cores, figures.CPU)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the plan: %w", err)
	}
	return nil
}

// short prints a number with two or three significant digits, and separators.
func short(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.01:
		return "<0.01"
	case v < 10 && v != math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	digits := strconv.FormatFloat(math.Round(v), 'f', 0, 64)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
