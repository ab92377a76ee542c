// Package terminaltest checks what programs print.
package terminaltest

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Hostile is what somebody may choose as text of a message, as a name or as a reason, to harm those who print it. ForgedLine is
// the line that it pretends is another person's.
const (
	ForgedLine = "15:04 [bob] #7 bob: pay eve"
	Hostile    = "eve\x1b[2J\x1b]0;owned\a\u009b31m\r\n" + ForgedLine + "\n" + ForgedLine + "\r" + ForgedLine + "\u2028" + ForgedLine +
		"\u202eevil\u2066\u200b\ufeff\x00\x7f" + "Z\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301 שלום\xff"
)

// Check returns an error if printed text holds anything but line feeds that a terminal obeys, or a line that another person's text
// forged at the left margin.
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
