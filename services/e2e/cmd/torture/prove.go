package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/torture"
)

// planted is the build tag of a bug, and the program that is built with it. The program is empty for a bug of the client,
// which is part of this program.
type planted struct {
	tag, program string
	// change adapts the run so that the bug must be found. May be nil.
	change func(*torture.Config)
	mix    mix
}

// String returns a name that distinguishes the bug from all others.
func (b planted) String() string {
	if b.mix == onlyNextHas {
		return b.tag + ", next version"
	}
	return b.tag
}

// mix selects the version that has the bug in a run of mixed versions.
type mix int

const (
	unmixed     mix = iota
	presentHas      // parts of the present version have the bug, parts of the next version do not
	onlyNextHas     // parts of the next version have the bug, parts of the present version do not
)

var bugs = []planted{
	{tag: "runnel_bug_ack_before_commit", program: launch.Delivery},
	{tag: "runnel_bug_fanout_before_commit", program: launch.Delivery},
	{tag: "runnel_bug_needs_not_loaded", program: launch.Delivery},
	{tag: "runnel_bug_refusal_forgotten", program: launch.Delivery},
	// A partition that has lost commands stops. This is detected at the end, when all partitions must be live.
	{tag: "runnel_bug_purge_above_watermark", program: launch.Delivery, change: lasting(15 * time.Second)},
	{tag: "runnel_bug_no_watermark_check", program: launch.History},
	{tag: "runnel_bug_no_unique_key", program: launch.History},
	{tag: "runnel_bug_effects_outside_transaction", program: launch.History},
	// Detected at the end, when the readers have read the whole feed.
	{tag: "runnel_bug_feed_skips", program: launch.History, change: lasting(10 * time.Second)},
	// Sequences repeat only if a stream is created again.
	{tag: "runnel_bug_position_reused", program: launch.History, change: plan(torture.PlanWipe)},
	{tag: "runnel_bug_gateway_resume_off_by_one", program: launch.Gateway},
	{tag: "runnel_bug_resume_off_by_one"},
	// Unknown fields exist only if a later version adds them. The stored content is compared at the end.
	{tag: "runnel_bug_unknown_fields_dropped", program: launch.Delivery, change: lasting(20 * time.Second), mix: presentHas},
	// A bug in the next version must also be found.
	{tag: "runnel_bug_gateway_resume_off_by_one", program: launch.Gateway, mix: onlyNextHas},
	// Only a power loss reveals which writes were not synced.
	{tag: lazyTag, program: launch.History, change: plan(torture.PlanPower)},
}

func lasting(d time.Duration) func(*torture.Config) {
	return func(cfg *torture.Config) { cfg.Duration = d }
}

func plan(plan torture.Plan) func(*torture.Config) {
	return func(cfg *torture.Config) { cfg.Plan = plan }
}

// proof is the result for one build.
type proof struct {
	Bug string `json:"bug"`
	// Found lists the broken invariants, in the order of their first violation.
	Found   string  `json:"found"`
	First   string  `json:"first_violation"`
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`
	// Skipped is why the build could not be tested on this machine.
	Skipped string `json:"skipped,omitempty"`
}

const (
	bugDuration     = 45 * time.Second
	controlDuration = 30 * time.Second
)

// prove checks that the torture run finds planted bugs: it must fail with each planted bug, and pass without.
func (c *cli) prove(ctx context.Context, dir string) (int, error) {
	plain, err := c.build(ctx, dir)
	if err != nil {
		return red, err
	}
	var proofs []proof
	code := green
	add := func(name string, report *torture.Report, wantGreen bool) {
		p := proof{Bug: name, Found: report.Invariants(), Seconds: report.Seconds, OK: report.Green() == wantGreen}
		if !report.Green() {
			p.First = report.Violations[0].String()
		}
		if !p.OK {
			code = red
		}
		fmt.Printf("== %s: %s %s\n", name, verdict(report.Green()), p.First)
		proofs = append(proofs, p)
	}
	for n, b := range bugs {
		if c.Bug != "" && c.Bug != b.tag {
			continue
		}
		fmt.Printf("\n== %s: building and running, at most %v\n", b, bugDuration)
		report, err := c.runBug(ctx, filepath.Join(dir, "bug-"+strconv.Itoa(n)), plain, b)
		if err == nil && report.Green() {
			// To reveal the bug, a fault must hit a command in flight. One run may miss by chance; two rarely do.
			fmt.Printf("== %s: not found with seed %d; running again with the next\n", b, c.Seed)
			again := *c
			again.Seed++
			report, err = again.runBug(ctx, filepath.Join(dir, "bug-"+strconv.Itoa(n)+"-again"), plain, b)
		}
		if errors.Is(err, torture.ErrSkipped) {
			fmt.Printf("== %s: %v\n", b, err)
			proofs = append(proofs, proof{Bug: b.String(), Skipped: err.Error()})
			continue
		}
		if err != nil {
			return red, fmt.Errorf("%s: %w", b, err)
		}
		add(b.String(), report, false)
	}
	if c.Bug != "" {
		return code, c.summarise(proofs)
	}
	fmt.Printf("\n== control: the same without a bug, %v\n", controlDuration)
	report, err := torture.Run(ctx, torture.Config{
		Name: "control", Dir: filepath.Join(dir, "control"), Binaries: plain.present, Next: plain.next, Store: launch.SQLite, NATSNodes: 1, Duration: controlDuration, Seed: c.Seed,
	}, os.Stdout)
	if err != nil {
		return red, err
	}
	report.Print(os.Stdout)
	add("none", report, true)

	fmt.Printf("\n%-52s %-7s %-8s %s\n", "planted bug", "verdict", "seconds", "first caught by")
	for _, p := range proofs {
		if p.Skipped != "" {
			fmt.Printf("%-52s %s\n", p.Bug, p.Skipped)
			continue
		}
		note := ""
		if !p.OK {
			note = "  ◀ not as it must be"
		}
		fmt.Printf("%-52s %-7s %-8.1f %s%s\n", p.Bug, verdict(p.Found == ""), p.Seconds, p.Found, note)
	}
	return code, c.summarise(proofs)
}

func verdict(isGreen bool) string {
	if isGreen {
		return "green"
	}
	return "red"
}

func (c *cli) runBug(ctx context.Context, dir string, plain *programs, b planted) (*torture.Report, error) {
	if b.program == "" {
		return c.runClientBug(ctx, dir, plain.present, b.tag)
	}
	cfg := torture.Config{
		Name: b.String(), Dir: dir, Binaries: plain.present, Store: launch.SQLite, NATSNodes: 1, Duration: bugDuration, Seed: c.Seed, FailFast: true,
	}
	if b.mix != unmixed {
		if cfg.Next = plain.next; cfg.Next == nil {
			return nil, fmt.Errorf("%w: versions are not to be mixed", torture.ErrSkipped)
		}
	}
	bin, target := filepath.Join(dir, "bin"), &cfg.Binaries
	build := launch.Build
	if b.mix == onlyNextHas {
		target, build = &cfg.Next, plain.buildNext
	}
	buggy, err := build(ctx, bin, b.tag, b.program)
	if err != nil {
		return nil, err
	}
	*target = maps.Clone(*target)
	maps.Copy(*target, buggy)
	if b.change != nil {
		b.change(&cfg)
	}
	return torture.Run(ctx, cfg, os.Stdout)
}

// runClientBug runs another build of this program, because the client with the bug is part of it.
func (c *cli) runClientBug(ctx context.Context, dir string, plain launch.Binaries, tag string) (*torture.Report, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	program, summary := filepath.Join(dir, "torture"), filepath.Join(dir, "summary.json")
	build := exec.CommandContext(ctx, "go", "build", "-tags", tag, "-o", program, "github.com/runnelhq/runnel/services/e2e/cmd/torture")
	if output, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build this program with the bug: %w\n%s", err, output)
	}
	command := exec.CommandContext(ctx, program, "--store=sqlite", "--nats-nodes=1", "--short", "--duration="+bugDuration.String(), "--fail-fast",
		"--seed="+strconv.FormatUint(c.Seed, 10), "--no-mix-versions", "--bin="+filepath.Dir(plain[launch.Gateway]), "--json="+summary)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "TMPDIR="+dir) // the data that a failed run keeps is removed with dir
	// On an interrupt, let the program stop its processes.
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != red) {
		return nil, fmt.Errorf("run the build with the bug: %w", err)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		return nil, fmt.Errorf("the build with the bug ended without a verdict: %w", err)
	}
	var reports []*torture.Report
	if err := json.Unmarshal(text, &reports); err != nil {
		return nil, fmt.Errorf("read the verdict: %w", err)
	}
	if len(reports) != 1 {
		return nil, fmt.Errorf("the build with the bug gave %d verdicts", len(reports))
	}
	return reports[0], nil
}
