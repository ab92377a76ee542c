package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// scenario is a measurement. Most scenarios run against a system of their own.
type scenario struct {
	number int
	name   string // for file names
	title  string
	extra  bool   // a variant that a quick run leaves out
	mode   string // the only mode that the scenario runs in; empty for both
	copies int    // number of gateways and workers
	run    func(ctx context.Context, t *trial) error
}

var scenarios = []scenario{
	{1, "groups", "groups at a fixed rate", false, "", 1, groupsPaced},
	{2, "closed", "groups in a closed loop", false, "", 1, groupsClosed},
	{2, "closed-no-receipts", "groups in a closed loop, without receipts", true, "", 1, groupsClosedWithoutReceipts},
	{3, "acks", "committed acks", false, "", 1, committedAcks},
	{4, "flood", "one room flat out", false, "", 1, roomFlatOut},
	{5, "room", "one room at a fixed rate", false, "", 1, roomPaced},
	{5, "room-no-receipts", "one room at a fixed rate, without receipts", true, "", 1, roomPacedWithoutReceipts},
	{6, "idle", "idle connections", false, "", 1, idleConnections},
	{7, "return", "many clients return", false, "", 1, manyReturn},
	{8, "long", "one client returns after long", false, "", 1, oneReturns},
	{9, "failover", "failover", false, separate, 2, failover},
	{10, "groups-fast", "groups at a high fixed rate", false, "", 1, groupsFast},
	{11, "window", "one room flat out, few messages in flight", false, "", 1, roomFewInFlight},
	{12, "idle-groups", "idle groups", false, "", 1, idleGroups},
	{13, "burst", "many groups created at once", false, "", 1, burst},
	{14, "restart", "standalone killed and restarted", false, standalone, 1, restart},
	{15, "growth", "memory under traffic", false, "", 1, growth},
	{16, "parts", "what each part spends", false, separate, 1, parts},
}

// trial is one scenario against one system.
type trial struct {
	Config
	sizes
	*system
	name   string // for file names
	mode   string
	report *Report
	out    io.Writer
}

// record stores the value of one figure in one run.
func (t *trial) record(key, metric string, value float64) {
	t.report.add(t.mode, key, metric, value)
}

// progressf prints progress.
func (t *trial) progressf(format string, args ...any) {
	fmt.Fprintf(t.out, "    %s\n", fmt.Sprintf(format, args...))
}

// memoryAtRest returns the RSS after a rest, in which the services finish what they still do.
func (t *trial) memoryAtRest(ctx context.Context) (int64, error) {
	if err := launch.Sleep(ctx, t.idleRest); err != nil {
		return 0, err
	}
	return t.memory(), nil
}

// window measures one run of a continuous load. In the last run it takes profiles if they were requested.
func (t *trial) window(ctx context.Context, run int) (cost, error) {
	return t.watched(ctx, func(ctx context.Context) error {
		if t.Profile != "" && run == t.Runs-1 {
			return t.profile(ctx, t.Profile, t.name, t.Window)
		}
		return launch.Sleep(ctx, t.Window)
	})
}

// watched measures the cost of during, and records whether other programs used the machine meanwhile.
func (t *trial) watched(ctx context.Context, during func(context.Context) error) (cost, error) {
	spent, err := t.measure(ctx, during)
	others := spent.others.Seconds() / spent.elapsed.Seconds()
	t.report.OtherCores = max(t.report.OtherCores, others)
	if others > disturbing && !t.Smoke {
		t.progressf("DISTURBED: something else took %.2f processors during the next run", others)
	}
	return spent, err
}

// disturbing is the number of processors used by other programs above which figures are doubtful.
const disturbing = 0.1

// Run measures the scenarios that cfg selects, and prints progress on out. If a scenario fails, the others are still
// measured. The report contains all results.
func Run(ctx context.Context, cfg Config, out io.Writer) (report *Report, err error) {
	cfg, size, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	dir, done, err := cfg.workplace()
	if err != nil {
		return nil, err
	}
	defer done()

	report = newReport(cfg)
	var failed []error
	for _, mode := range cfg.modes() {
		fmt.Fprintf(out, "building the programs for %s\n", mode)
		binaries, err := launch.Build(ctx, filepath.Join(os.TempDir(), "runnel-bench-bin"), "", programs(mode)...)
		if err != nil {
			return nil, err
		}
		for _, shared := range cfg.plan(mode) {
			t := &trial{Config: cfg, sizes: size, mode: mode, report: report, out: out}
			if err := t.against(ctx, shared, &build{binaries: binaries}, filepath.Join(dir, mode+"-"+shared[0].name)); err != nil {
				if ctx.Err() != nil {
					return report, ctx.Err()
				}
				failed = append(failed, err)
			}
		}
	}
	report.complete()
	return report, errors.Join(failed...)
}

// workplace makes a directory for data and logs, and prepares this process for the load. The caller calls done at the
// end.
func (c Config) workplace() (dir string, done func(), err error) {
	if c.Keep != "" {
		if err := os.MkdirAll(c.Keep, 0o755); err != nil {
			return "", nil, fmt.Errorf("make the directory for data: %w", err)
		}
	}
	dir, err = os.MkdirTemp(c.Keep, "runnel-bench-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for data: %w", err)
	}
	// The load generator allocates little. Rare garbage collections disturb the measurements least.
	percent := debug.SetGCPercent(800)
	return dir, func() {
		debug.SetGCPercent(percent)
		if c.Keep == "" {
			_ = os.RemoveAll(dir)
		}
	}, nil
}

// modes returns the modes to measure.
func (c Config) modes() []string {
	if c.Mode == "both" {
		return []string{standalone, separate}
	}
	return []string{c.Mode}
}

// plan lists the selected scenarios; the scenarios of an inner list share a system. Normally each scenario has its own
// system. If the run only checks that the scenarios work, they share one.
func (c Config) plan(mode string) [][]scenario {
	var plan [][]scenario
	for _, s := range scenarios {
		switch {
		case (len(c.Only) > 0 && !slices.Contains(c.Only, s.number)) || (s.mode != "" && s.mode != mode),
			s.extra && (c.Quick || c.Smoke):
		case c.Smoke && len(plan) > 0:
			plan[0] = append(plan[0], s)
		default:
			plan = append(plan, []scenario{s})
		}
	}
	return plan
}

// against runs scenarios against one new system. If a scenario fails, the others are still run.
func (t *trial) against(ctx context.Context, shared []scenario, b *build, dir string) (err error) {
	copies := 1
	for _, s := range shared {
		copies = max(copies, s.copies)
	}
	begun := time.Now()
	var traces *sink
	var flags []string
	if t.SampleRatio > 0 {
		if traces, err = newSink(); err != nil {
			return err
		}
		defer func() {
			t.progressf("%d spans came to the collector", traces.spans.Load())
			err = errors.Join(err, traces.close())
		}()
		flags = traces.flags(t.SampleRatio)
	}
	if t.system, err = start(ctx, t.mode, b, dir, copies, t.Profile != "", flags); err != nil {
		return fmt.Errorf("scenario %d: %w", shared[0].number, err)
	}
	defer func() {
		err = errors.Join(err, t.close())
		if t.Keep == "" {
			_ = os.RemoveAll(dir)
		}
	}()
	if t.Postgres != nil && t.report.Machine.PostgreSQL == "" {
		t.report.Machine.PostgreSQL = postgresVersion(ctx, t.Database)
	}
	fmt.Fprintf(t.out, "%s: running after %s: %s\n", t.mode, time.Since(begun).Round(10*time.Millisecond), strings.Join(names(t.Parts()), ", "))
	for _, s := range shared {
		fmt.Fprintf(t.out, "  scenario %d: %s\n", s.number, s.title)
		t.name = t.mode + "-" + s.name
		if failed := s.run(ctx, t); failed != nil {
			t.progressf("FAILED: %v", failed)
			err = errors.Join(err, fmt.Errorf("%s, scenario %d failed, see above", t.mode, s.number))
		}
	}
	return err
}

func names(parts []launch.Part) []string {
	list := make([]string, len(parts))
	for i, part := range parts {
		list[i] = part.Name()
	}
	return list
}
