// Command torture kills and pauses the parts of Runnel at random, under load, and checks that every promise was kept.
//
//	go run ./services/e2e/cmd/torture --short    about two minutes: SQLite, then PostgreSQL
//	go run ./services/e2e/cmd/torture            longer, with the loss of the broker's store and a cluster of three
//	go run ./services/e2e/cmd/torture --prove    each planted bug must be found, and a build without one pass
//
// It exits with 0 when every promise was kept, 1 when one was broken or the run failed, 2 when it was called wrongly.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/postgrestest"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/torture"
)

type cli struct {
	Short     bool          `help:"The form for every day: two runs of 45 s each, one NATS server."`
	Duration  time.Duration `help:"How long load and faults go on in each run; the default is 45s with --short, else 5m."`
	Seed      uint64        `help:"Decides the faults and what is sent when; 0 draws one."`
	Store     string        `help:"Only this store: sqlite or postgres. Without it both." enum:"sqlite,postgres," default:""`
	NATSNodes int           `name:"nats-nodes" help:"NATS servers, 1 or 3; without it 1, except that the long form has 3 with PostgreSQL." default:"0"`
	Tags      string        `help:"Build tags for the services, separated by commas: planted bugs. (One in the client needs go run -tags.)"`
	FailFast  bool          `help:"End a run with the first broken promise."`
	Keep      bool          `help:"Keep logs and data of green runs, too."`
	Prove     bool          `help:"Run with each planted bug, which must be found, and then without any."`
	JSON      string        `name:"json" help:"File for a summary; - for standard output." type:"path"`
	Bin       string        `help:"Take the programs from this directory instead of building them." type:"existingdir"`
}

const (
	green = 0
	red   = 1
	usage = 2
)

func main() {
	var c cli
	parser, err := kong.New(&c, kong.Name("torture"), kong.Description("Kill and pause Runnel's parts at random, under load, and check that every promise was kept."),
		kong.Exit(func(code int) {
			if code != 0 {
				code = usage
			}
			os.Exit(code)
		}))
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(usage)
	}
	_, err = parser.Parse(os.Args[1:])
	if err == nil && c.NATSNodes != 0 && c.NATSNodes != 1 && c.NATSNodes != 3 {
		err = errors.New("--nats-nodes must be 1 or 3")
	}
	parser.FatalIfErrorf(err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code, err := c.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		code = red
	}
	os.Exit(code)
}

func (c *cli) run(ctx context.Context) (code int, err error) {
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1e9) + 1
	}
	dir, err := os.MkdirTemp("", "runnel-torture-")
	if err != nil {
		return red, fmt.Errorf("make a directory: %w", err)
	}
	defer func() {
		if code == green && err == nil && !c.Keep {
			err = os.RemoveAll(dir)
		} else {
			fmt.Println("logs and data are in", dir)
		}
	}()
	fmt.Printf("seed %d; building the programs\n", c.Seed)
	if c.Prove {
		return c.prove(ctx, dir)
	}
	binaries, err := c.binaries(ctx, dir)
	if err != nil {
		return red, err
	}
	var reports []*torture.Report
	for _, cfg := range c.plan() {
		cfg.Dir, cfg.Binaries = filepath.Join(dir, string(cfg.Store)), binaries
		report, err := torture.Run(ctx, cfg, os.Stdout)
		switch {
		case errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "":
			fmt.Println("the run on PostgreSQL is skipped:", err)
			continue
		case err != nil:
			return red, err
		case ctx.Err() != nil:
			return red, fmt.Errorf("ended before it was done: %w", ctx.Err())
		}
		report.Print(os.Stdout)
		reports = append(reports, report)
		if !report.Green() {
			code = red
		}
	}
	return code, c.summarise(reports)
}

// services are the programs that a run needs.
var services = []string{launch.NATSServer, launch.History, launch.Delivery, launch.Gateway}

func (c *cli) binaries(ctx context.Context, dir string) (launch.Binaries, error) {
	if c.Bin == "" {
		return launch.Build(ctx, filepath.Join(dir, "bin"), c.Tags, services...)
	}
	binaries := launch.Binaries{}
	for _, name := range services {
		binaries[name] = filepath.Join(c.Bin, name)
	}
	return binaries, nil
}

// plan lists the runs.
func (c *cli) plan() []torture.Config {
	duration := c.Duration
	if duration == 0 {
		duration = 5 * time.Minute
		if c.Short {
			duration = 45 * time.Second
		}
	}
	var runs []torture.Config
	for _, store := range []launch.Store{launch.SQLite, launch.PostgreSQL} {
		if c.Store != "" && c.Store != string(store) {
			continue
		}
		nodes := c.NATSNodes
		if nodes == 0 {
			nodes = 1
			if store == launch.PostgreSQL && !c.Short {
				nodes = 3
			}
		}
		runs = append(runs, torture.Config{
			Store: store, NATSNodes: nodes, Duration: duration, Seed: c.Seed, Wipe: !c.Short, FailFast: c.FailFast,
		})
	}
	return runs
}

func (c *cli) summarise(summary any) error {
	if c.JSON == "" {
		return nil
	}
	text, err := json.MarshalIndent(summary, "", "  ")
	if err != nil {
		return fmt.Errorf("make the summary: %w", err)
	}
	text = append(text, '\n')
	if filepath.Base(c.JSON) == "-" {
		_, err = os.Stdout.Write(text)
		return err
	}
	return os.WriteFile(c.JSON, text, 0o644)
}
