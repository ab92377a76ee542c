// Package terminal makes text from other people safe to print on a terminal: messages, names, ids, and errors of servers.
//
// Such text may contain escape sequences that control the terminal, line breaks that forge another person's line, marks that reverse the
// order of the following text, and combining characters that cover other lines. Every command prints such text only with Line, Text or JSON.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Indent begins every line of a Text except the first. Therefore a line at the left margin is never part of another
// person's text.
const Indent = "    "

// maxMarks is the number of consecutive combining and joining characters that are kept. Written languages and emoji need
// at most seven.
const maxMarks = 8

const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
	firstStrongIsolate = "\u2068"
	popIsolate         = "\u2069"
)

// Line returns a text as one line, for names, ids, reasons and cells of tables. It escapes line breaks and all other
// control characters.
func Line(text string) string {
	if plain(text) {
		return text
	}
	return clean(text)
}

// Text returns a text of several lines, for messages and errors. Each line after the first begins with Indent. Tabs
// become spaces.
func Text(text string) string {
	if plain(text) {
		return text
	}
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	text = strings.ReplaceAll(text, "\t", Indent)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = clean(line)
	}
	return strings.Join(lines, "\n"+Indent)
}

// JSON escapes characters in encoded JSON that JSON allows but that control a terminal. The result is the same JSON
// value.
func JSON(encoded []byte) []byte {
	var b strings.Builder
	for _, r := range string(encoded) {
		switch {
		case r < 0x7f || !hidden(r): // the encoder has already escaped characters below 0x7f
			b.WriteRune(r)
		case r > 0xffff:
			high, low := surrogates(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}

func surrogates(r rune) (high, low rune) {
	r -= 0x10000
	return 0xd800 + r>>10, 0xdc00 + r&0x3ff
}

// plain reports whether a text consists only of printable ASCII, which is the usual case.
func plain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// clean escapes every character of a line that must not be printed. If the line is written from right to left, it also
// isolates the line's direction.
func clean(line string) string {
	var b strings.Builder
	marks, rightToLeft := 0, false
	for i := 0; i < len(line); {
		r, size := utf8.DecodeRuneInString(line[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, line[i])
			marks = 0
		case hidden(r):
			b.WriteString(escaped(r))
			marks = 0
		case mark(r):
			if marks++; marks <= maxMarks {
				b.WriteRune(r)
			} else if marks == maxMarks+1 {
				b.WriteRune(unicode.ReplacementChar)
			}
		default:
			b.WriteRune(r)
			marks, rightToLeft = 0, rightToLeft || writtenRightToLeft(r)
		}
		i += size
	}
	if rightToLeft {
		return firstStrongIsolate + b.String() + popIsolate
	}
	return b.String()
}

// escaped returns the escape sequence of a character in Go syntax.
func escaped(r rune) string {
	switch {
	case r == '\n':
		return `\n`
	case r == '\r':
		return `\r`
	case r == '\t':
		return `\t`
	case r < utf8.RuneSelf:
		return fmt.Sprintf(`\x%02x`, r)
	case r > 0xffff:
		return fmt.Sprintf(`\U%08x`, r)
	default:
		return fmt.Sprintf(`\u%04x`, r)
	}
}

// hidden reports whether a character is invisible but affects other text: controls, line and paragraph separators, and
// invisible formatting characters, including all that change the direction. Joiners, and tags of flags, are not hidden,
// because written text needs them.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Cs) || (unicode.Is(unicode.Cf, r) && !mark(r))
}

// mark reports whether a character changes the character before it and has no width of its own.
func mark(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me) || r == zeroWidthNonJoiner || r == zeroWidthJoiner || (r >= 0xe0020 && r <= 0xe007f)
}

// writtenRightToLeft reports whether a character is in a Unicode block for scripts written from right to left.
func writtenRightToLeft(r rune) bool {
	return (r >= 0x0590 && r <= 0x08ff) || (r >= 0xfb1d && r <= 0xfdff) || (r >= 0xfe70 && r <= 0xfefc) ||
		(r >= 0x10800 && r <= 0x10fff) || (r >= 0x1e800 && r <= 0x1efff)
}
