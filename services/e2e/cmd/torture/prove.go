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

// planted names the build tag of a bug and the program that it is built into; none for the client, which is part of this program.
type planted struct {
	tag, program string
	// change makes the run one that the bug cannot survive. May be nil.
	change func(*torture.Config)
}

var bugs = []planted{
	{"runnel_bug_ack_before_commit", launch.Delivery, nil},
	{"runnel_bug_fanout_before_commit", launch.Delivery, nil},
	{"runnel_bug_needs_not_loaded", launch.Delivery, nil},
	{"runnel_bug_refusal_forgotten", launch.Delivery, nil},
	// A partition that lost commands stands still, which is seen when everything must be live again.
	{"runnel_bug_purge_above_watermark", launch.Delivery, short10},
	{"runnel_bug_no_watermark_check", launch.History, nil},
	{"runnel_bug_no_unique_key", launch.History, nil},
	{"runnel_bug_effects_outside_transaction", launch.History, nil},
	// Seen when the readers have read to the end.
	{"runnel_bug_feed_skips", launch.History, short10},
	// Only a stream that was made anew gives sequences again.
	{"runnel_bug_position_reused", launch.History, plan(torture.PlanWipe)},
	{"runnel_bug_gateway_resume_off_by_one", launch.Gateway, nil},
	{"runnel_bug_resume_off_by_one", "", nil},
	// Nothing less shows what was not synced.
	{lazyTag, launch.History, plan(torture.PlanPower)},
}

func short10(cfg *torture.Config) { cfg.Duration = 10 * time.Second }

func plan(plan torture.Plan) func(*torture.Config) {
	return func(cfg *torture.Config) { cfg.Plan = plan }
}

// proof is what came of one build.
type proof struct {
	Bug string `json:"bug"`
	// Found are the invariants that were seen to be broken, by the first violation.
	Found   string  `json:"found"`
	First   string  `json:"first_violation"`
	Seconds float64 `json:"seconds"`
	OK      bool    `json:"ok"`
	// Skipped says why it could not be tried on this machine.
	Skipped string `json:"skipped,omitempty"`
}

const (
	bugDuration     = 45 * time.Second
	controlDuration = 30 * time.Second
)

// prove shows that the torture run finds what it is meant to find: red with each planted bug, green without.
func (c *cli) prove(ctx context.Context, dir string) (int, error) {
	plain, err := launch.Build(ctx, filepath.Join(dir, "bin"), "", services...)
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
	for _, b := range bugs {
		if c.Bug != "" && c.Bug != b.tag {
			continue
		}
		fmt.Printf("\n== %s: building and running, at most %v\n", b.tag, bugDuration)
		report, err := c.runBug(ctx, filepath.Join(dir, b.tag), plain, b)
		if errors.Is(err, torture.ErrSkipped) {
			fmt.Printf("== %s: %v\n", b.tag, err)
			proofs = append(proofs, proof{Bug: b.tag, Skipped: err.Error()})
			continue
		}
		if err != nil {
			return red, fmt.Errorf("%s: %w", b.tag, err)
		}
		add(b.tag, report, false)
	}
	if c.Bug != "" {
		return code, c.summarise(proofs)
	}
	fmt.Printf("\n== control: the same without a bug, %v\n", controlDuration)
	report, err := torture.Run(ctx, torture.Config{
		Name: "control", Dir: filepath.Join(dir, "control"), Binaries: plain, Store: launch.SQLite, NATSNodes: 1, Duration: controlDuration, Seed: c.Seed,
	}, os.Stdout)
	if err != nil {
		return red, err
	}
	report.Print(os.Stdout)
	add("none", report, true)

	fmt.Printf("\n%-40s %-7s %-8s %s\n", "planted bug", "verdict", "seconds", "first caught by")
	for _, p := range proofs {
		if p.Skipped != "" {
			fmt.Printf("%-40s %s\n", p.Bug, p.Skipped)
			continue
		}
		note := ""
		if !p.OK {
			note = "  ◀ not as it must be"
		}
		fmt.Printf("%-40s %-7s %-8.1f %s%s\n", p.Bug, verdict(p.Found == ""), p.Seconds, p.Found, note)
	}
	return code, c.summarise(proofs)
}

func verdict(isGreen bool) string {
	if isGreen {
		return "green"
	}
	return "red"
}

func (c *cli) runBug(ctx context.Context, dir string, plain launch.Binaries, b planted) (*torture.Report, error) {
	if b.program == "" {
		return c.runClientBug(ctx, dir, plain, b.tag)
	}
	buggy, err := launch.Build(ctx, filepath.Join(dir, "bin"), b.tag, b.program)
	if err != nil {
		return nil, err
	}
	binaries := maps.Clone(plain)
	maps.Copy(binaries, buggy)
	cfg := torture.Config{
		Name: b.tag, Dir: dir, Binaries: binaries, Store: launch.SQLite, NATSNodes: 1, Duration: bugDuration, Seed: c.Seed, FailFast: true,
	}
	if b.change != nil {
		b.change(&cfg)
	}
	return torture.Run(ctx, cfg, os.Stdout)
}

// runClientBug runs another build of this program: the client with its bug is part of it.
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
		"--seed="+strconv.FormatUint(c.Seed, 10), "--bin="+filepath.Dir(plain[launch.Gateway]), "--json="+summary)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	command.Env = append(os.Environ(), "TMPDIR="+dir) // what a red run keeps goes with the rest
	// An interrupt lets it end its processes.
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
