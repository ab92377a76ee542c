package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Report contains all results.
type Report struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	Options Options   `json:"options"`
	// OtherCores is the number of processors that other programs used, in the worst run. Above 0.1 the figures are
	// doubtful.
	OtherCores float64   `json:"other_cores"`
	Figures    []*Figure `json:"figures"`
}

// Machine is the machine on which the figures were measured.
type Machine struct {
	CPU        string  `json:"cpu"`
	Cores      int     `json:"cores"`
	MemoryGiB  float64 `json:"memory_gib"`
	Kernel     string  `json:"kernel"`
	Go         string  `json:"go"`
	PostgreSQL string  `json:"postgresql,omitempty"`
	Commit     string  `json:"commit,omitempty"`
}

// Options are the options that affect the figures.
type Options struct {
	Runs     int     `json:"runs"`
	Window   float64 `json:"window_seconds"`
	Smoke    bool    `json:"smoke,omitempty"`
	Profiled bool    `json:"profiled,omitempty"`
}

// Figure is one figure of one mode, over all runs.
type Figure struct {
	Mode     string    `json:"mode"`
	Scenario int       `json:"scenario"`
	Key      string    `json:"key"`
	Metric   string    `json:"metric"`
	Unit     string    `json:"unit"`
	Runs     []float64 `json:"runs"`
	Median   float64   `json:"median"`
	Min      float64   `json:"min"`
	Max      float64   `json:"max"`
	// Target is 0 if there is none. Met reports whether the median meets the target.
	Target float64 `json:"target,omitempty"`
	Met    bool    `json:"met"`
}

func newReport(cfg Config) *Report {
	return &Report{
		Date: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(),
		Options: Options{Runs: cfg.Runs, Window: cfg.Window.Seconds(), Smoke: cfg.Smoke, Profiled: cfg.Profile != ""},
	}
}

func (r *Report) find(mode, key, metric string) *Figure {
	for _, f := range r.Figures {
		if f.Mode == mode && f.Key == key && f.Metric == metric {
			return f
		}
	}
	return nil
}

func (r *Report) add(mode, key, metric string, value float64) {
	f := r.find(mode, key, metric)
	if f == nil {
		f = &Figure{Mode: mode, Key: key, Metric: metric}
		r.Figures = append(r.Figures, f)
	}
	f.Runs = append(f.Runs, value)
}

// complete computes medians and ranges.
func (r *Report) complete() {
	for _, f := range r.Figures {
		f.Median, f.Min, f.Max = median(f.Runs), slices.Min(f.Runs), slices.Max(f.Runs)
		for _, row := range rows {
			if row.key == f.Key && row.metric == f.Metric {
				f.Scenario, f.Unit, f.Target = row.scenario, row.unit, row.targetFor(f.Mode)
				f.Met = f.Target == 0 || row.met(f.Median, f.Target)
			}
		}
	}
}

// median returns the median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error { return WriteJSON(path, r) }

// WriteJSON writes figures to a file.
func WriteJSON(path string, figures any) error {
	data, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the figures: %w", err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the figures: %w", err)
	}
	return nil
}

// Print prints the figures next to their targets.
func (r *Report) Print(out io.Writer) {
	if r.Options.Smoke {
		fmt.Fprintln(out, "\n--smoke: everything works. The sizes are tiny, whatever the names below say, and the figures mean nothing.")
	}
	for _, mode := range []string{standalone, separate} {
		if !slices.ContainsFunc(r.Figures, func(f *Figure) bool { return f.Mode == mode }) {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", mode)
		for _, row := range rows {
			f := r.find(mode, row.key, row.metric)
			if f == nil {
				continue
			}
			verdict := ""
			switch {
			case r.Options.Smoke:
			case f.Target == 0:
				verdict = "no target"
			case f.Met:
				verdict = "target " + number(f.Target) + ": met"
			default:
				verdict = "target " + number(f.Target) + ": MISSED"
			}
			fmt.Fprintf(out, "  %-78s %34s %-12s %s\n", row.what, withRange(f), row.unit, verdict)
		}
	}
	if r.OtherCores > disturbing && !r.Options.Smoke {
		fmt.Fprintf(out, "\nDISTURBED: other programs took up to %.2f processors. Measure again when the machine is quiet.\n", r.OtherCores)
	}
}

// withRange formats the median and, with several runs, the range.
func withRange(f *Figure) string {
	if len(f.Runs) == 1 {
		return number(f.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(f.Median), number(f.Min), number(f.Max))
}

// number prints three significant digits, and whole numbers with separators.
func number(v float64) string {
	switch {
	case v >= 100:
		digits := fmt.Sprintf("%.0f", v)
		for i := len(digits) - 3; i > 0; i -= 3 {
			digits = digits[:i] + "," + digits[i:]
		}
		return digits
	case v >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	case v == float64(int(v)):
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Kernel: firstLine("/proc/sys/kernel/osrelease")}
	m.CPU = field("/proc/cpuinfo", "model name")
	var kilobytes float64
	_, _ = fmt.Sscan(field("/proc/meminfo", "MemTotal"), &kilobytes)
	m.MemoryGiB = float64(int(kilobytes/1024/1024*10)) / 10
	m.Commit = commitOf(".")
	return m
}

// commitOf describes the commit of a checkout. It is empty if the directory is not a checkout.
func commitOf(dir string) string {
	command := exec.Command("git", "describe", "--always", "--dirty")
	command.Dir = dir
	commit, err := command.Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(commit))
}

func firstLine(path string) string {
	text, _ := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

// field reads the value of "name : value" in a file of /proc.
func field(path, name string) string {
	text, _ := os.ReadFile(path)
	for line := range strings.Lines(string(text)) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func postgresVersion(ctx context.Context, url string) string {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return ""
	}
	defer conn.Close(ctx)
	var version string
	if conn.QueryRow(ctx, "SHOW server_version").Scan(&version) != nil {
		return ""
	}
	return version
}
