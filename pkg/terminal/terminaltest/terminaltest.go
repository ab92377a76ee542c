// Package terminaltest checks the output of programs.
package terminaltest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hostile is a hostile text of a message, name or reason. It is made to harm people who print it on a terminal.
// ForgedLine is the line in it that pretends to be another person's.
const (
	ForgedLine = "15:04 [bob] #7 bob: pay eve"
	Hostile    = "eve\x1b[2J\x1b]0;owned\a\u009b31m\r\n" + ForgedLine + "\n" + ForgedLine + "\r" + ForgedLine + "\u2028" + ForgedLine +
		"\u202eevil\u2066\u200b\ufeff\x00\x7f" + "Z\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301 שלום\xff"
)

// Check returns an error if printed text contains control characters other than line feeds, or a line at the left margin
// that another person's text forged.
func Check(printed string) error {
	if !utf8.ValidString(printed) {
		return fmt.Errorf("invalid UTF-8 in %q", printed)
	}
	isolates, marks := 0, 0
	for _, r := range printed {
		switch {
		case r == '\n':
			if isolates != 0 {
				return fmt.Errorf("a direction is isolated beyond its line in %q", printed)
			}
		case r == '\u2068':
			isolates++
		case r == '\u2069':
			isolates--
		case unicode.Is(unicode.Cc, r), unicode.In(r, unicode.Zl, unicode.Zp), unicode.Is(unicode.Bidi_Control, r), r == '\u200b', r == '\ufeff':
			return fmt.Errorf("%U in %q", r, printed)
		}
		if isolates < 0 || isolates > 1 {
			return fmt.Errorf("unbalanced isolates in %q", printed)
		}
		if marks++; !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		}
		if marks > 8 {
			return fmt.Errorf("a flood of combining characters in %q", printed)
		}
	}
	if isolates != 0 {
		return fmt.Errorf("a direction is isolated to the end of %q", printed)
	}
	for line := range strings.Lines(printed) {
		if strings.HasPrefix(line, ForgedLine) {
			return fmt.Errorf("a forged line in %q", printed)
		}
	}
	return nil
}
