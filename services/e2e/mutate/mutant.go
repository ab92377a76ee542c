package mutate

import (
	"fmt"
	"strings"
)

// Mutant is one mistake in the code.
type Mutant struct {
	// File is the path of the file in the repository.
	File string
	// Func is the function, and its receiver's type.
	Func string
	// Line is where it is.
	Line int
	// Change says what is done to the code.
	Change string
	// Nth tells equal changes of one function apart, from 1.
	Nth int

	number int // which one the test binary is told to make, from 1
}

// Key names a mutant. It stays the same when lines move.
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
