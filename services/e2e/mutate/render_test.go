package mutate

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every mistake is behind a switch of its own, and no line moves.
func TestAFileIsRendered(t *testing.T) {
	const source = `package p

func (t *T) F(a, b int) bool {
	if a < b && t.ok() {
		t.n++
	}
	return a == b
}
`
	fset, last := token.NewFileSet(), 0
	file, err := parser.ParseFile(fset, "p.go", source, 0)
	require.NoError(t, err)
	f := finder{file: "p/p.go", source: source, fset: fset, next: func() int { last++; return last }}
	f.find(file)
	var keys []string
	for _, s := range f.sites {
		keys = append(keys, s.mutants[0].Key())
	}
	require.ElementsMatch(t, []string{
		"p/p.go T.F: `a < b` removed from &&", "p/p.go T.F: `t.ok()` removed from &&", "p/p.go T.F: `a < b` negated",
		"p/p.go T.F: `a < b` becomes `a <= b`", "p/p.go T.F: `t.n++` removed", "p/p.go T.F: `a == b` negated",
	}, keys)
	rendered := render(source, f.sites)
	_, err = parser.ParseFile(token.NewFileSet(), "p.go", rendered, 0)
	require.NoError(t, err, rendered)
	require.Equal(t, strings.Count(source, "\n"), strings.Count(rendered, "\n"))
	for number := 1; number <= last; number++ {
		require.Contains(t, rendered, chosen(number))
	}
}
