// Command torture kills and pauses the parts of Runnel at random, under load, and checks that every promise is kept.
//
//	go run ./services/e2e/cmd/torture --short    about two minutes: each kind of fault at least once
//	go run ./services/e2e/cmd/torture            random faults for longer, with the loss of the broker's store and a cluster of three
//	go run ./services/e2e/cmd/torture --long     round after round of everything, alone and mixed, until --budget is spent
//	go run ./services/e2e/cmd/torture --roll     all gateways are replaced while 5,000 clients are connected
//	go run ./services/e2e/cmd/torture --prove    each planted bug must be found, and a build without bugs must pass
//
// A part that is restarted is sometimes of the next version of Runnel, which is made from the workspace (--mix-versions).
//
// Power losses and full disks need Linux and root; otherwise these runs are skipped, and counted as skipped. It exits with 0
// if every promise was kept, 1 if a promise was broken or a run failed, 2 if the command line is invalid.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/postgrestest"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/torture"
)

type cli struct {
	Short       bool          `help:"The daily form: random faults on SQLite, a tour of a cluster's faults on PostgreSQL, a loss of power and its control, a small roll."`
	Long        bool          `help:"Run all plans round after round, until --budget is used up."`
	Budget      time.Duration `help:"Duration of --long; a round that has begun is finished." default:"30m"`
	Roll        bool          `help:"Only a roll: replace all gateways under --clients clients, while messages are sent."`
	Clients     int           `help:"Number of connected clients for --roll." default:"5000"`
	Gateways    int           `help:"Number of gateways for --roll." default:"3"`
	Plan        string        `help:"Only one run, of this plan: random, tour, grand-tour, mix, outages, power or wipe." enum:"random,tour,grand-tour,mix,outages,power,wipe," default:""`
	Lazy        string        `help:"Which part does not sync in --plan=power: database or nats. The run then expects a loss." enum:"database,nats," default:""`
	Duration    time.Duration `help:"Duration of load and faults in runs that do not end by themselves; the default is 25s with --short, 90s with --long, else 5m."`
	Seed        uint64        `help:"Seed for the faults and the load; 0 chooses a random one."`
	Store       string        `help:"Only this store: sqlite or postgres. Defaults to both." enum:"sqlite,postgres," default:""`
	NATSNodes   int           `name:"nats-nodes" help:"Number of NATS servers, 1 or 3. Defaults to the plan's number." default:"0"`
	Tags        string        `help:"Build tags for the services, separated by commas: planted bugs. (One in the client needs go run -tags.)"`
	MixVersions bool          `help:"A restarted part becomes the current or the next version, depending on the seed. The next version is made from this one; that needs .tools/bin/buf (make tools)." default:"true" negatable:""`
	NextTags    string        `help:"Build tags for the services of the next version, separated by commas: planted bugs." default:""`
	FailFast    bool          `help:"End a run at the first broken promise."`
	Keep        bool          `help:"Also keep logs and data of green runs."`
	Bug         string        `help:"Build tag of the only planted bug that --prove tests." default:""`
	Prove       bool          `help:"Run once with each planted bug, which must be found, and once without any."`
	JSON        string        `name:"json" help:"File for a summary; - for standard output." type:"path"`
	Bin         string        `help:"Use the programs in this directory instead of building them." type:"existingdir"`
}

const (
	green = 0
	red   = 1
	usage = 2
)

func main() {
	var c cli
	parser, err := kong.New(&c, settings.VersionFlag(), kong.Name("torture"), kong.Description("Kill and pause Runnel's parts at random, under load, and check that every promise was kept."),
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
	if err == nil && c.Lazy != "" && c.Plan != string(torture.PlanPower) {
		err = errors.New("--lazy is of --plan=power")
	}
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
	built, err := c.build(ctx, dir)
	if err != nil {
		return red, err
	}
	b := bench{cli: c, dir: dir, programs: built}
	if err := b.everything(ctx); err != nil {
		return red, err
	}
	code = summary(os.Stdout, b.reports)
	return code, c.summarise(b.reports)
}

// bench makes runs, one after another.
type bench struct {
	*cli
	*programs
	dir     string
	lazy    launch.Binaries // with a SQLite that does not sync; built when needed
	reports []*torture.Report
}

// everything makes all requested runs.
func (b *bench) everything(ctx context.Context) error {
	begun := time.Now()
	if b.Roll {
		return b.roll(ctx, b.Clients, b.Gateways)
	}
	runs := b.plan()
	if !b.Long {
		for _, cfg := range runs {
			if err := b.run(ctx, cfg); err != nil {
				return err
			}
		}
		if b.Short && b.Store == "" {
			return b.roll(ctx, shortRoll, 2)
		}
		return nil
	}
	if err := b.roll(ctx, b.Clients, b.Gateways); err != nil {
		return err
	}
	for n := 0; time.Since(begun) < b.Budget; n++ {
		cfg := round(runs, b.Seed, n)
		fmt.Printf("\n== %s: seed %d; %v of %v are spent\n", cfg.Name, cfg.Seed, time.Since(begun).Round(time.Second), b.Budget)
		if err := b.run(ctx, cfg); err != nil {
			return err
		}
	}
	return nil
}

// shortRoll is the number of clients of a roll in the short form of the command.
const shortRoll = 300

// run makes one run. If this machine cannot make the run, the run is recorded as skipped.
func (b *bench) run(ctx context.Context, cfg torture.Config) (err error) {
	cfg.Dir, cfg.Binaries, cfg.Next = b.place(), b.present, b.next
	if cfg.Lazy == torture.LazyDatabase && cfg.Store == launch.SQLite {
		if cfg.Binaries, err = b.lazyBinaries(ctx); err != nil {
			return err
		}
	}
	report, err := torture.Run(ctx, cfg, os.Stdout)
	return b.note(ctx, report, err, torture.Report{Name: cfg.Name, Seed: cfg.Seed, Store: string(cfg.Store), NATSNodes: cfg.NATSNodes, Plan: cfg.Plan, Lazy: cfg.Lazy})
}

// place returns the directory of the next run.
func (b *bench) place() string { return filepath.Join(b.dir, fmt.Sprintf("run-%d", len(b.reports)+1)) }

// roll replaces this many gateways under this many clients.
func (b *bench) roll(ctx context.Context, clients, gateways int) error {
	report, err := torture.Roll(ctx, torture.RollConfig{
		Dir: b.place(), Binaries: b.present, Next: b.next, Clients: clients, Gateways: gateways, Seed: b.Seed,
	}, os.Stdout)
	return b.note(ctx, report, err, torture.Report{Name: "roll", Seed: b.Seed, Store: string(launch.PostgreSQL)})
}

// note records the result of a run. instead is the report to record if the run could not be made.
func (b *bench) note(ctx context.Context, report *torture.Report, err error, instead torture.Report) error {
	switch {
	case errors.Is(err, torture.ErrSkipped), errors.Is(err, postgrestest.ErrNotInstalled) && os.Getenv("CI") == "":
		instead.Skipped = err.Error()
		report = &instead
	case err != nil:
		return fmt.Errorf("%s: %w", instead.Name, err)
	case ctx.Err() != nil:
		return fmt.Errorf("ended before it was done: %w", ctx.Err())
	}
	report.Print(os.Stdout)
	b.reports = append(b.reports, report)
	return b.tidy(report)
}

// tidy removes the data of a run without violations, because the long form would fill the disk.
func (b *bench) tidy(report *torture.Report) error {
	if b.Keep || report.Verdict() == "RED" || report.Dir == "" {
		return nil
	}
	return os.RemoveAll(report.Dir)
}

// summary prints one line for each run, and returns the exit code.
func summary(w io.Writer, reports []*torture.Report) (code int) {
	verdicts := map[string]int{}
	fmt.Fprintf(w, "\n%-44s %-9s %-5s %-11s %s\n", "run", "store", "NATS", "seed", "verdict")
	for _, r := range reports {
		note := r.Skipped
		if len(r.Violations) > 0 {
			code, note = red, r.Invariants()+"; data in "+r.Dir
		}
		fmt.Fprintf(w, "%-44s %-9s %-5d %-11d %-8s %s\n", r.Name, r.Store, r.NATSNodes, r.Seed, r.Verdict(), note)
		verdicts[r.Verdict()]++
	}
	fmt.Fprintf(w, "%d green, %d red, %d skipped\n", verdicts["green"], verdicts["RED"], verdicts["skipped"])
	return code
}

// lazyTag is the build tag for a SQLite that does not sync.
const lazyTag = "runnel_bug_lazy_sync"

func (b *bench) lazyBinaries(ctx context.Context) (launch.Binaries, error) {
	if b.lazy != nil {
		return b.lazy, nil
	}
	built, err := launch.Build(ctx, filepath.Join(b.dir, lazyTag), lazyTag, launch.History)
	if err != nil {
		return nil, err
	}
	b.lazy = maps.Clone(b.present)
	maps.Copy(b.lazy, built)
	return b.lazy, nil
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
