package mutate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Names in the generated code.
const (
	switchFile = "runnel_mutant_switch.go"
	variable   = "RUNNEL_MUTANT"
)

// chosen returns an expression that is true if the mutant with this number is selected.
func chosen(number int) string { return fmt.Sprintf("runnelMutant(%d)", number) }

func pick(number int, right, wrong string) string {
	return fmt.Sprintf("runnelPick(%d, %s, %s)", number, right, wrong)
}

// switches returns the source of a file that is added to the package.
func switches(name string) string {
	return "package " + name + `

import "os"

var runnelMutantText = os.Getenv("` + variable + `")

var runnelMutantNumber = func() (n int) {
	for _, digit := range runnelMutantText {
		n = 10*n + int(digit-'0')
	}
	return n
}()

func runnelMutant(number int) bool { return runnelMutantNumber == number }

func runnelPick[T any](number int, right, wrong T) T {
	if runnelMutantNumber == number {
		return wrong
	}
	return right
}
`
}

// render replaces the sites in a file. It adds and removes no lines, so that a line in a compiler message identifies a
// site.
func render(source string, sites []*site) string {
	sorted := slices.Clone(sites)
	// Outer sites come first. If two sites begin and end at the same place, the one found first is the outer one.
	slices.SortStableFunc(sorted, func(a, b *site) int { return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(b.to, a.to)) })
	var b strings.Builder
	renderRange(&b, source, 0, len(source), sorted)
	return b.String()
}

// renderRange writes the text between two offsets, and returns the sites that begin after it.
func renderRange(b *strings.Builder, source string, from, to int, sites []*site) []*site {
	for len(sites) > 0 && sites[0].from < to {
		s := sites[0]
		b.WriteString(source[from:s.from])
		var inner strings.Builder
		sites = renderRange(&inner, source, s.from, s.to, sites[1:])
		b.WriteString(s.wrap(inner.String()))
		from = s.to
	}
	b.WriteString(source[from:to])
	return sites
}
