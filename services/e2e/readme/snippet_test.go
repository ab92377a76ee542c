package readme

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestGoSnippet: the Go code of README.md is a part of an example of pkg/client, which is compiled and run.
func TestGoSnippet(t *testing.T) {
	example := withoutIndent(read(t, "pkg/client/readme_example_test.go"))
	snippets := fences(read(t, "README.md"), "go")
	require.NotEmpty(t, snippets)
	for _, f := range snippets {
		require.Contains(t, example, withoutIndent(f.text), "line %d of README.md", f.line)
	}
}

// withoutIndent removes the white space in front of every line, and empty lines.
func withoutIndent(code string) string {
	var all strings.Builder
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); line != "" {
			all.WriteString(line + "\n")
		}
	}
	return all.String()
}
