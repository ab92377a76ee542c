package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"
)

// Comparison contains the results of several builds. The builds are measured in turn.
type Comparison struct {
	Date       time.Time     `json:"date"`
	Machine    Machine       `json:"machine"`
	Options    Options       `json:"options"`
	OtherCores float64       `json:"other_cores"`
	Builds     []Build       `json:"builds"`
	Rows       []ComparedRow `json:"rows"`
}

// Build is one of the compared builds.
type Build struct {
	Name     string   `json:"name"` // A, B …
	Path     string   `json:"path"`
	Commit   string   `json:"commit,omitempty"`
	Settings []string `json:"settings,omitempty"`
}

// ComparedRow is one row with the figure of each build.
type ComparedRow struct {
	Mode     string    `json:"mode"`
	Scenario int       `json:"scenario"`
	Key      string    `json:"key"`
	Metric   string    `json:"metric"`
	What     string    `json:"what"`
	Unit     string    `json:"unit"`
	Figures  []*Figure `json:"figures"` // one for each build, in the order of the builds
	Against  []Against `json:"against"` // one for each build after the first
}

// Against compares a build with the first one.
type Against struct {
	// Ratio is the median of the ratios of the rounds. Min and Max are their range. All three are 0 if a figure was not
	// above 0.
	Ratio   float64 `json:"ratio"`
	Min     float64 `json:"min"`
	Max     float64 `json:"max"`
	Verdict Verdict `json:"verdict"`
}

// Verdict is the result of comparing a build with the first build in one row.
type Verdict string

// The verdicts.
const (
	// Better and Worse: the ranges of the two builds do not overlap.
	Better Verdict = "better"
	Worse  Verdict = "worse"
	// Noise means that the difference is within the noise.
	Noise Verdict = "within the noise"
	// TooFew means that there were fewer than fewestRounds rounds.
	TooFew Verdict = "too few runs"
)

const (
	// fewestRounds is the smallest number of rounds that permits a conclusion.
	fewestRounds = 3
	// manyRounds is the number of rounds from which a consistent difference counts although the ranges overlap. The
	// difference must have the same sign in every round. Equal builds show such a difference in one row of 32.
	manyRounds = 6
)

// Compare measures the scenarios that cfg selects on each build. The builds take turns in every scenario, for as many
// rounds as cfg has runs. Each measurement starts the services anew. If one build fails in a round, the round
// counts for no build.
func Compare(ctx context.Context, cfg Config, out io.Writer) (*Comparison, error) {
	cfg, size, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	builds := make([]*build, len(cfg.Builds))
	for i, text := range cfg.Builds {
		if builds[i], err = parseBuild(text); err != nil {
			return nil, err
		}
	}
	dir, done, err := cfg.workplace()
	if err != nil {
		return nil, err
	}
	defer done()

	c := newComparison(cfg, builds)
	reports := make([]*Report, len(builds))
	for i := range reports {
		reports[i] = newReport(cfg)
	}
	rounds := cfg.Runs
	cfg.Runs = 1
	var failed []error
	for _, mode := range cfg.modes() {
		for i, b := range builds {
			fmt.Fprintf(out, "preparing %s for %s: %s\n", c.Builds[i].Name, mode, b.path)
			if err := b.prepare(ctx, mode); err != nil {
				return nil, err
			}
		}
		for _, shared := range cfg.plan(mode) {
			for round := range rounds {
				results := make([]*Report, 0, len(builds))
				for i, b := range builds {
					fmt.Fprintf(out, "round %d of %d, %s\n", round+1, rounds, c.Builds[i].Name)
					result := newReport(cfg)
					t := &trial{Config: cfg, sizes: size, mode: mode, report: result, out: out}
					err := t.against(ctx, shared, b, filepath.Join(dir, fmt.Sprintf("%s-%s-%d%s", mode, shared[0].name, round+1, c.Builds[i].Name)))
					if ctx.Err() != nil {
						return c, ctx.Err()
					}
					c.OtherCores = max(c.OtherCores, result.OtherCores)
					c.Machine.PostgreSQL = max(c.Machine.PostgreSQL, result.Machine.PostgreSQL)
					if err != nil {
						failed = append(failed, fmt.Errorf("build %s: %w", c.Builds[i].Name, err))
						continue
					}
					results = append(results, result)
				}
				if len(results) < len(builds) {
					continue
				}
				for i, result := range results {
					reports[i].append(result)
				}
			}
		}
	}
	c.complete(reports)
	return c, errors.Join(failed...)
}

func newComparison(cfg Config, builds []*build) *Comparison {
	empty := newReport(cfg)
	c := &Comparison{Date: empty.Date, Machine: empty.Machine, Options: empty.Options}
	c.Machine.Commit = "" // each build has its own commit
	for i, b := range builds {
		c.Builds = append(c.Builds, Build{
			Name: string(rune('A' + i)), Path: b.path, Commit: commitOf(b.path), Settings: slices.Concat(b.flags, b.environment),
		})
	}
	return c
}

// append adds the runs of another report.
func (r *Report) append(other *Report) {
	for _, f := range other.Figures {
		for _, value := range f.Runs {
			r.add(f.Mode, f.Key, f.Metric, value)
		}
	}
}

// complete computes the rows from the reports of all builds.
func (c *Comparison) complete(reports []*Report) {
	for _, r := range reports {
		r.complete()
	}
	for _, mode := range []string{standalone, separate} {
		for _, row := range rows {
			compared := ComparedRow{Mode: mode, Scenario: row.scenario, Key: row.key, Metric: row.metric, What: row.what, Unit: row.unit}
			for _, r := range reports {
				if f := r.find(mode, row.key, row.metric); f != nil {
					compared.Figures = append(compared.Figures, f)
				}
			}
			if len(compared.Figures) < len(reports) {
				continue
			}
			for _, f := range compared.Figures[1:] {
				compared.Against = append(compared.Against, against(compared.Figures[0].Runs, f.Runs, row.more))
			}
			c.Rows = append(c.Rows, compared)
		}
	}
}

// against compares the runs of two builds. Runs with the same index belong to the same round.
func against(first, second []float64, more bool) Against {
	result := Against{Verdict: Noise}
	ratios := make([]float64, 0, len(first))
	higher := 0
	for i := range min(len(first), len(second)) {
		if second[i] > first[i] {
			higher++
		}
		if first[i] > 0 && second[i] > 0 {
			ratios = append(ratios, second[i]/first[i])
		}
	}
	rounds := min(len(first), len(second))
	if rounds > 0 && len(ratios) == rounds {
		result.Ratio, result.Min, result.Max = median(ratios), slices.Min(ratios), slices.Max(ratios)
	}
	if rounds < fewestRounds {
		result.Verdict = TooFew
		return result
	}
	isHigher := slices.Min(second) > slices.Max(first) || (rounds >= manyRounds && higher == rounds)
	isLower := slices.Max(second) < slices.Min(first) || (rounds >= manyRounds && higher == 0 && !slices.Equal(first, second))
	if isHigher || isLower {
		result.Verdict = Worse
		if isHigher == more {
			result.Verdict = Better
		}
	}
	return result
}

// WriteJSON writes the comparison to a file.
func (c *Comparison) WriteJSON(path string) error { return WriteJSON(path, c) }

// Print prints the figures of each build and their ratios to the figures of the first build.
func (c *Comparison) Print(out io.Writer) {
	fmt.Fprintln(out)
	for _, b := range c.Builds {
		fmt.Fprintf(out, "%s: %s %s %v\n", b.Name, b.Path, b.Commit, b.Settings)
	}
	if c.Options.Smoke {
		fmt.Fprintln(out, "--smoke: everything works. The sizes are tiny, whatever the names below say, and the figures mean nothing.")
	}
	mode := ""
	for _, row := range c.Rows {
		if row.Mode != mode {
			mode = row.Mode
			fmt.Fprintf(out, "\n%s\n", mode)
		}
		fmt.Fprintf(out, "  %s, %s\n", row.What, row.Unit)
		fmt.Fprintf(out, "      %s  %s\n", c.Builds[0].Name, withRange(row.Figures[0]))
		for i, a := range row.Against {
			name := c.Builds[i+1].Name
			ratio := "no ratio"
			if a.Ratio > 0 {
				ratio = fmt.Sprintf("%s/%s %.3f (%.3f–%.3f)", name, c.Builds[0].Name, a.Ratio, a.Min, a.Max)
			}
			fmt.Fprintf(out, "      %s  %-36s %-30s %s\n", name, withRange(row.Figures[i+1]), ratio, a.Verdict)
		}
	}
	if c.OtherCores > disturbing && !c.Options.Smoke {
		fmt.Fprintf(out, "\nDISTURBED: other programs took up to %.2f processors.\n", c.OtherCores)
	}
}
