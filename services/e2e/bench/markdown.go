package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// The text between these lines of README.md is generated; the rest is written by hand.
const (
	beginFigures = "<!-- figures: written by make bench ARGS=--write -->\n"
	endFigures   = "<!-- end of figures -->\n"
)

// WriteREADME replaces the tables in a README.
func (r *Report) WriteREADME(path string) error {
	if r.Options.Smoke || r.Options.Profiled {
		return errors.New("the tables are for full runs, neither --smoke nor --profile")
	}
	return ReplaceBetween(path, beginFigures, endFigures, r.markdown())
}

// ReplaceBetween replaces the text between two lines of a page.
func ReplaceBetween(path, begin, end, text string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the page to write figures into: %w", err)
	}
	before, rest, begins := bytes.Cut(page, []byte(begin))
	_, after, ends := bytes.Cut(rest, []byte(end))
	if !begins || !ends {
		return fmt.Errorf("%s has no place for figures: it needs the lines %q and %q", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(string(before)+begin+text+end+string(after)), 0o644); err != nil {
		return fmt.Errorf("write the page with figures: %w", err)
	}
	return nil
}

// markdown formats the machine and the table.
func (r *Report) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "\nMeasured on %s, commit %s: %s, %d cores, %.1f GiB, Linux %s, %s", r.Date.Format("2006-01-02"), m.Commit, m.CPU, m.Cores, m.MemoryGiB, m.Kernel, m.Go)
	if m.PostgreSQL != "" {
		fmt.Fprintf(&b, ", PostgreSQL %s", m.PostgreSQL)
	}
	fmt.Fprintf(&b, ". Median of %d runs of %s s (lowest–highest); other programs took at most %.2f processors. **Bold** misses its target.\n\n",
		r.Options.Runs, number(r.Options.Window), r.OtherCores)
	b.WriteString("| | what | unit | Centrifugo memory | Centrifugo Redis always | Tinode | target | Runnel standalone | Runnel separate, PostgreSQL |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range rows {
		alone, apart := r.cell(standalone, row), r.cell(separate, row)
		if alone == "" && apart == "" {
			continue
		}
		fmt.Fprintf(&b, "| %d | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.scenario, row.what, row.unit, row.peers.memory, row.peers.durable, row.peers.tinode, row.target(), alone, apart)
	}
	b.WriteString("\n")
	return b.String()
}

func (r *Report) cell(mode string, row row) string {
	f := r.find(mode, row.key, row.metric)
	switch {
	case f == nil:
		return ""
	case f.Met:
		return withRange(f)
	default:
		return "**" + withRange(f) + "**"
	}
}
