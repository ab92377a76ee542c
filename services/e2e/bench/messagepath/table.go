package messagepath

import (
	"fmt"
	"io"
	"maps"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench"
)

// Table contains the counts of all rounds.
type Table struct {
	Date     time.Time `json:"date"`
	Go       string    `json:"go"`
	Commit   string    `json:"commit,omitempty"`
	Messages int       `json:"messages"`
	Stages   []Row     `json:"stages"`
	Total    Row       `json:"total"`
	Traffic  []Count   `json:"traffic"`
	// Details are the averages of single wake-ups, system calls and allocations, by functions.
	Details map[string]float64 `json:"details"`

	rounds int
}

// Row is one stage.
type Row struct {
	Stage  string  `json:"stage"`
	Counts []Count `json:"counts"`
}

// Count is a count per message, in each round.
type Count struct {
	Name string    `json:"name"`
	Runs []float64 `json:"runs"`
}

// columns are the names of a row's counts.
var columns = []string{
	"woken by goroutines", "woken by network, timers", "goroutines started", "reads", "writes", "syncs", "other calls", "allocations", "bytes allocated",
}

func newRow(stage string) Row {
	row := Row{Stage: stage}
	for _, column := range columns {
		row.Counts = append(row.Counts, Count{Name: column})
	}
	return row
}

func newTable(cfg Config) *Table {
	t := &Table{
		Date: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Messages: cfg.Messages, Total: newRow("all"), Details: map[string]float64{},
		Traffic: []Count{
			{Name: "bytes from clients"}, {Name: "bytes to clients"}, {Name: "bytes written to files"}, {Name: "bytes read from files"}, {Name: "receipts to clients"},
		},
	}
	if commit, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		t.Commit = strings.TrimSpace(string(commit))
	}
	for _, name := range stageNames {
		t.Stages = append(t.Stages, newRow(name))
	}
	return t
}

// add adds a round.
func (t *Table) add(seen *activity, made *allocations, crossed traffic) {
	t.rounds++
	n := float64(t.Messages)
	sums := make([]float64, len(columns))
	for stage := range stages {
		c := seen.calls[stage]
		counts := []float64{
			float64(seen.handed[stage]), float64(seen.woken[stage]), float64(seen.begun[stage]), float64(c.reads), float64(c.writes), float64(c.syncs),
			float64(c.other), float64(made.stages[stage].count), float64(made.stages[stage].bytes),
		}
		for i, count := range counts {
			sums[i] += count
			t.Stages[stage].Counts[i].Runs = append(t.Stages[stage].Counts[i].Runs, count/n)
		}
	}
	for i, sum := range sums {
		t.Total.Counts[i].Runs = append(t.Total.Counts[i].Runs, sum/n)
	}
	for i, count := range []int64{crossed.fromClients, crossed.toClients, crossed.filesWritten, crossed.filesRead, crossed.receipts} {
		t.Traffic[i].Runs = append(t.Traffic[i].Runs, float64(count)/n)
	}
	for _, details := range []map[string]int{seen.details, made.details} {
		for what, count := range details {
			t.Details[what] += float64(count) / n
		}
	}
}

// median of at least one value.
func (c Count) median() float64 {
	sorted := slices.Sorted(slices.Values(c.Runs))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// short formats the median; nothing for 0.
func (c Count) short() string {
	if c.median() == 0 {
		return ""
	}
	return number(c.median())
}

// long formats the median and the range.
func (c Count) long() string {
	if len(c.Runs) == 1 {
		return number(c.median())
	}
	return fmt.Sprintf("%s (%s–%s)", number(c.median()), number(slices.Min(c.Runs)), number(slices.Max(c.Runs)))
}

func number(v float64) string {
	switch {
	case v < 0.005:
		return "0"
	case v < 100:
		return fmt.Sprintf("%.2f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// Print prints the table, and the most frequent details.
func (t *Table) Print(out io.Writer, details int) {
	fmt.Fprintf(out, "\nPer message:\n%-66s", "")
	for _, column := range columns {
		fmt.Fprintf(out, " %*s", width(column), column)
	}
	fmt.Fprintln(out)
	for _, row := range append(slices.Clone(t.Stages), t.Total) {
		fmt.Fprintf(out, "%-66s", row.Stage)
		for _, count := range row.Counts {
			fmt.Fprintf(out, " %*s", width(count.Name), count.short())
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out)
	for _, count := range append(slices.Clone(t.Total.Counts), t.Traffic...) {
		fmt.Fprintf(out, "%-30s %s\n", count.Name, count.long())
	}
	t.printDetails(out, details)
}

func width(column string) int { return max(len(column), 6) }

func (t *Table) printDetails(out io.Writer, most int) {
	names := slices.SortedFunc(maps.Keys(t.Details), func(a, b string) int {
		switch d := t.Details[b] - t.Details[a]; {
		case d > 0:
			return 1
		case d < 0:
			return -1
		}
		return strings.Compare(a, b)
	})
	for _, kind := range []struct {
		title string
		is    func(string) bool
	}{
		{"wake-ups and goroutines", func(what string) bool { return !isCall(what) && !isAllocation(what) }},
		{"system calls", isCall},
		{"allocations", isAllocation},
	} {
		left := most
		for _, name := range names {
			if left == 0 {
				break
			}
			if !kind.is(name) {
				continue
			}
			if left == most {
				fmt.Fprintf(out, "\n%s\n", kind.title)
			}
			left--
			fmt.Fprintf(out, "%10.2f  %s\n", t.Details[name]/float64(t.rounds), name)
		}
	}
}

func isAllocation(what string) bool { return strings.HasPrefix(what, "allocate: ") }

func isCall(what string) bool {
	return slices.ContainsFunc([]string{"read: ", "write: ", "sync: ", "system call "}, func(prefix string) bool { return strings.HasPrefix(what, prefix) })
}

// WriteJSON writes the table to a file.
func (t *Table) WriteJSON(path string) error { return bench.WriteJSON(path, t) }

// The text between these lines of README.md is generated.
const (
	beginTable = "<!-- path: written by make bench-path ARGS=--write -->\n"
	endTable   = "<!-- end of path -->\n"
)

// WriteREADME replaces the table in a README.
func (t *Table) WriteREADME(path string) error {
	return bench.ReplaceBetween(path, beginTable, endTable, t.markdown())
}

func (t *Table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nCounted on %s, commit %s, %s: averages over %d messages, median of %d rounds.\n\n", t.Date.Format("2006-01-02"), t.Commit, t.Go, t.Messages, t.rounds)
	fmt.Fprintf(&b, "| per message | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	line := func(name string, counts []Count, format func(Count) string) {
		fmt.Fprintf(&b, "| %s |", name)
		for _, count := range counts {
			fmt.Fprintf(&b, " %s |", format(count))
		}
		b.WriteString("\n")
	}
	for _, row := range t.Stages {
		line(row.Stage, row.Counts, Count.short)
	}
	line("**all** (lowest–highest round)", t.Total.Counts, Count.long)
	b.WriteString("\n| per message | |\n|---|---|\n")
	for _, count := range t.Traffic {
		fmt.Fprintf(&b, "| %s | %s |\n", count.Name, count.long())
	}
	b.WriteString("\n")
	return b.String()
}
