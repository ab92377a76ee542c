package mutate

import (
	"fmt"
	"strings"
)

// Mutant is one mistake in the code.
type Mutant struct {
	// File is the path of the file in the repository.
	File string
	// Func is the function, with its receiver's type.
	Func string
	// Line is the line of the mistake.
	Line int
	// Change describes the change of the code.
	Change string
	// Nth distinguishes equal changes in one function; it counts from 1.
	Nth int

	number int // the number that selects this mistake in the test binary, from 1
}

// Key identifies a mutant. It stays the same when lines move.
func (m Mutant) Key() string {
	key := fmt.Sprintf("%s %s: %s", m.File, m.Func, m.Change)
	if m.Nth > 1 {
		key += fmt.Sprintf(" (%d)", m.Nth)
	}
	return key
}

// oneLine shortens source text for a key.
func oneLine(source string) string {
	const longest = 80
	text := strings.Join(strings.Fields(source), " ")
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return text
}
