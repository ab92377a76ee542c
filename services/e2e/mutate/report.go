package mutate

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The text between these lines of README.md is generated, except for the reasons.
const (
	beginTables = "<!-- tables: written by make mutate ARGS=--write; the reasons by people -->\n"
	endTables   = "<!-- end of tables -->\n"
)

// counts are the figures of a package.
type counts struct{ mutants, left int }

// Report contains the tables of README.md: the packages, and the unnoticed mutants.
type Report struct {
	path          string
	before, after string
	packages      map[string]counts
	reasons       map[string]string // by the mutant's key; empty if no reason was given

	measured []Result
}

// Open reads the tables of the last measurement.
func Open(path string) (*Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the tables: %w", err)
	}
	before, rest, begins := strings.Cut(string(text), beginTables)
	tables, after, ends := strings.Cut(rest, endTables)
	if !begins || !ends {
		return nil, fmt.Errorf("%s has no place for tables: it needs the lines %q and %q", path, beginTables, endTables)
	}
	r := &Report{path: path, before: before, after: after, packages: map[string]counts{}, reasons: map[string]string{}}
	for line := range strings.Lines(tables) {
		r.read(strings.TrimSpace(line))
	}
	return r, nil
}

// read reads a row of either table.
func (r *Report) read(line string) {
	row := strings.Split(strings.Trim(line, "|"), " | ")
	for i := range row {
		row[i] = strings.TrimSpace(row[i])
	}
	switch len(row) {
	case 4:
		mutants, err := strconv.Atoi(row[1])
		noticed, err2 := strconv.Atoi(row[2])
		if err == nil && err2 == nil {
			r.packages[row[0]] = counts{mutants, mutants - noticed}
		}
	case 2:
		if strings.Contains(row[0], ".go ") {
			r.reasons[unescape(row[0])] = row[1]
		}
	}
}

// Put replaces the figures and the mutants of a package. It keeps the reasons of mutants that are still unnoticed.
func (r *Report) Put(result Result) {
	r.measured = append(r.measured, result)
	r.packages[result.Package] = counts{result.Mutants, len(result.Left)}
	known := map[string]string{}
	for key, reason := range r.reasons {
		if packageOf(key) == result.Package {
			known[key] = reason
			delete(r.reasons, key)
		}
	}
	for _, m := range result.Left {
		r.reasons[m.Key()] = known[m.Key()]
	}
}

func packageOf(key string) string {
	file, _, _ := strings.Cut(key, " ")
	directory, _, _ := cutLast(file, "/")
	return directory
}

// Write writes the tables.
func (r *Report) Write() error {
	var b strings.Builder
	b.WriteString(r.before + beginTables + "\n| package | mutants | noticed | of 100 |\n|---|---:|---:|---:|\n")
	for _, path := range slices.Sorted(maps.Keys(r.packages)) {
		c := r.packages[path]
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f |\n", path, c.mutants, c.mutants-c.left, 100*(1-float64(c.left)/float64(max(1, c.mutants))))
	}
	b.WriteString("\n| not noticed | reason |\n|---|---|\n")
	for _, key := range slices.Sorted(maps.Keys(r.reasons)) {
		fmt.Fprintf(&b, "| %s | %s |\n", escape(key), r.reasons[key])
	}
	b.WriteString("\n" + endTables + r.after)
	if err := os.WriteFile(r.path, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("write the tables: %w", err)
	}
	return nil
}

// A cell of a table must not contain the separator of cells.
func escape(key string) string   { return strings.ReplaceAll(key, "|", "\\|") }
func unescape(key string) string { return strings.ReplaceAll(key, "\\|", "|") }

// Verdict returns an error if a measured package fails: too few mutants were noticed, or an unnoticed mutant has no
// reason.
func (r *Report) Verdict() error {
	var errs []error
	for _, result := range r.measured {
		if result.Noticed() < Goal {
			errs = append(errs, fmt.Errorf("%s: the tests notice %.0f of 100 mutants, fewer than %.0f", result.Package, 100*result.Noticed(), 100*Goal))
		}
		for _, m := range result.Left {
			if r.reasons[m.Key()] == "" {
				errs = append(errs, fmt.Errorf("nothing notices, and no reason is given: %s (line %d)", m.Key(), m.Line))
			}
		}
	}
	return errors.Join(errs...)
}
