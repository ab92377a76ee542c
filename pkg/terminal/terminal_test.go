package terminal_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/terminal"
	"github.com/runnelhq/runnel/pkg/terminal/terminaltest"
)

func TestTextOfOthersIsShownButNotObeyed(t *testing.T) {
	flag := "\U0001F3F4\U000E0067\U000E0062\U000E0065\U000E006E\U000E0067\U000E007F" // England
	for _, c := range []struct{ text, line, lines string }{
		{"", "", ""},
		{"hello, <b>", "hello, <b>", "hello, <b>"},
		{"Zürich 🌉 Ж e\u0301", "Zürich 🌉 Ж e\u0301", "Zürich 🌉 Ж e\u0301"},
		{"👩\u200d👩\u200d👧 ❤\ufe0f " + flag, "👩\u200d👩\u200d👧 ❤\ufe0f " + flag, "👩\u200d👩\u200d👧 ❤\ufe0f " + flag},
		{"a\nb", `a\nb`, "a\n    b"},
		{"a\r\nb\r\n", `a\r\nb\r\n`, "a\n    b\n    "},
		{"a\rb", `a\rb`, "a\n    b"},
		{"a\tb", `a\tb`, "a    b"},
		{"\x1b[2J", `\x1b[2J`, `\x1b[2J`},
		{"\u009b2J\u0085", `\u009b2J\u0085`, `\u009b2J\u0085`},
		{"a\u2028b", `a\u2028b`, `a\u2028b`},
		{"exe.\u202egnp", `exe.\u202egnp`, `exe.\u202egnp`},
		{"a\u200b\ufeffb", `a\u200b\ufeffb`, `a\u200b\ufeffb`},
		{"שלום", "\u2068שלום\u2069", "\u2068שלום\u2069"},
		{"שלום\nb", "\u2068שלום\\nb\u2069", "\u2068שלום\u2069\n    b"},
		{"a\xff\xc3", `a\xff\xc3`, `a\xff\xc3`},
		{"Z" + strings.Repeat("\u0301", 50) + "x", "Z" + strings.Repeat("\u0301", 8) + "\ufffdx", "Z" + strings.Repeat("\u0301", 8) + "\ufffdx"},
	} {
		require.Equal(t, c.line, terminal.Line(c.text), "%q", c.text)
		require.Equal(t, c.lines, terminal.Text(c.text), "%q", c.text)
	}
}

func TestTheCheckFindsEverythingHostile(t *testing.T) {
	for _, printed := range []string{
		"\x1b[2J", "a\rb", "\u009b", "a\tb", "\u202e", "\u2066", "\u2028", "\u200f", "\u2068a", "\u2068a\n\u2069", "\xff",
		"Z" + strings.Repeat("\u0301", 20), "x\n" + terminaltest.ForgedLine, terminaltest.Hostile,
	} {
		require.Error(t, terminaltest.Check(printed), "%q", printed)
	}
	require.NoError(t, terminaltest.Check("eve: x\n    "+terminaltest.ForgedLine+"\n"))
}

func TestJSONStaysTheSameValue(t *testing.T) {
	value := strings.ToValidUTF8(terminaltest.Hostile, "?") + "\U000E0001"
	encoded, err := json.Marshal(value)
	require.NoError(t, err)
	safe := terminal.JSON(encoded)
	require.NoError(t, terminaltest.Check(strings.ReplaceAll(string(safe), "\u0301", "")))
	require.NotContains(t, string(safe), "\U000E0001")
	var decoded string
	require.NoError(t, json.Unmarshal(safe, &decoded))
	require.Equal(t, value, decoded)
}

func FuzzNothingIsObeyed(f *testing.F) {
	f.Add(terminaltest.Hostile)
	f.Add("a\r\n\u2067b\u2069")
	f.Add("\u0590\n\u0590")
	f.Fuzz(func(t *testing.T, text string) {
		line := "eve: " + terminal.Line(text)
		require.NoError(t, terminaltest.Check(line))
		require.NotContains(t, line, "\n")
		lines := "eve: " + terminal.Text(text)
		require.NoError(t, terminaltest.Check(lines))
		for i, line := range strings.Split(lines, "\n") {
			if i > 0 {
				require.True(t, strings.HasPrefix(line, terminal.Indent), "%q", lines)
			}
		}
	})
}

func TestSprintfTrustsNobody(t *testing.T) {
	type id string
	printed := terminal.Sprintf("%s|%v|%s|%s|%d|%s", "a\nb\x1b", errors.New("c\nd"), terminal.Name("e\nf"), terminal.Safe("g\nh"), 7, id("i\x1b"))
	require.Equal(t, terminal.Safe("a\n    b\\x1b|c\n    d|e\\nf|g\nh|7|i\\x1b"), printed)
}
