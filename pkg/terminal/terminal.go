// Package terminal makes text of other people safe to print at a terminal: messages, names, ids, and errors of servers.
//
// Such text may hold escape sequences that steer the terminal, line breaks that forge another person's line, marks that reverse the
// order of what follows, and combining characters that cover other lines. Every command prints it through Line, Text or JSON, and
// through nothing else.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Indent begins every line of a Text but the first. A line at the left margin is therefore never part of somebody's text.
const Indent = "    "

// maxMarks is the number of combining and joining characters after one another that are kept. Written languages and emoji need at
// most seven.
const maxMarks = 8

const (
	zeroWidthNonJoiner = '\u200c'
	zeroWidthJoiner    = '\u200d'
	firstStrongIsolate = "\u2068"
	popIsolate         = "\u2069"
)

// Line returns a text as one line, for names, ids, reasons and cells of tables. Line breaks are escaped, like all other control
// characters.
func Line(text string) string {
	if plain(text) {
		return text
	}
	return clean(text)
}

// Text returns a text of several lines, for messages and errors. Each line after the first begins with Indent; tabs are spaces.
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

// JSON escapes, in encoded JSON, the characters that JSON allows but a terminal obeys. The result is the same JSON value.
func JSON(encoded []byte) []byte {
	var b strings.Builder
	for _, r := range string(encoded) {
		switch {
		case r < 0x7f || !hidden(r): // the encoder escaped those below already
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

// plain reports whether a text consists of printable ASCII, as most do.
func plain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// clean escapes everything in one line that has no place in it, and isolates its direction if it is written from right to left.
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

// escaped names a character as Go source does.
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

// hidden reports whether a character is not printed but acts on what is: controls, line and paragraph separators, and invisible
// formatting characters, among them all that change the direction. The joiners and the tags of flags belong to written text.
func hidden(r rune) bool {
	return unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, unicode.Cs) || (unicode.Is(unicode.Cf, r) && !mark(r))
}

// mark reports whether a character changes the one before it and takes no place of its own.
func mark(r rune) bool {
	return unicode.In(r, unicode.Mn, unicode.Me) || r == zeroWidthNonJoiner || r == zeroWidthJoiner || (r >= 0xe0020 && r <= 0xe007f)
}

// writtenRightToLeft reports whether a character is in the blocks that Unicode keeps for scripts written from right to left.
func writtenRightToLeft(r rune) bool {
	return (r >= 0x0590 && r <= 0x08ff) || (r >= 0xfb1d && r <= 0xfdff) || (r >= 0xfe70 && r <= 0xfefc) ||
		(r >= 0x10800 && r <= 0x10fff) || (r >= 0x1e800 && r <= 0x1efff)
}
