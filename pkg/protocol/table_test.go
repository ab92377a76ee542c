package protocol_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/protocol"
)

// constants returns the names of the exported constants of limits.go, in order.
func constants(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, declaration := range parse(t, "limits.go").Decls {
		group, ok := declaration.(*ast.GenDecl)
		require.True(t, ok && group.Tok == token.CONST, "limits.go holds constants only")
		for _, spec := range group.Specs {
			one, ok := spec.(*ast.ValueSpec)
			require.True(t, ok)
			require.NotEmpty(t, one.Doc.Text(), "%s has a comment", one.Names[0].Name)
			for _, name := range one.Names {
				names = append(names, name.Name)
			}
		}
	}
	return names
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	require.NoError(t, err)
	return parsed
}

// TestEveryConstantIsInTheTable compares the two lists. It also compares the name in each row with the constant beside it.
func TestEveryConstantIsInTheTable(t *testing.T) {
	var rows []string
	ast.Inspect(parse(t, "table.go"), func(node ast.Node) bool {
		literal, ok := node.(*ast.CompositeLit)
		if !ok || literal.Type != nil {
			return true
		}
		name, isText := literal.Elts[0].(*ast.BasicLit)
		constant, isName := literal.Elts[1].(*ast.Ident)
		require.True(t, isText && isName, "a row begins with a name and its constant")
		text, err := strconv.Unquote(name.Value)
		require.NoError(t, err)
		require.Equal(t, snake(constant.Name), text)
		rows = append(rows, constant.Name)
		return true
	})
	require.Equal(t, constants(t), rows)
	require.Len(t, protocol.Limits, len(rows))
}

func TestEveryRowIsComplete(t *testing.T) {
	for _, l := range protocol.Limits {
		require.NotZero(t, l.Value, l.Name)
		require.Contains(t, []protocol.Unit{protocol.Bytes, protocol.Items, protocol.Number}, l.Unit, l.Name)
		require.Contains(t, []protocol.Part{protocol.Gateway, protocol.Delivery}, l.By, l.Name)
		require.True(t, strings.HasSuffix(l.Doc, "."), l.Name)
		require.Equal(t, strings.HasSuffix(l.Name, "_bytes"), l.Unit == protocol.Bytes, l.Name)
	}
}

// snake returns a Go name in snake case: max_id_bytes for MaxIDBytes.
func snake(name string) string {
	var out []rune
	runes := []rune(name)
	for i, r := range runes {
		begins := i > 0 && unicode.IsUpper(r) && (unicode.IsLower(runes[i-1]) || (i+1 < len(runes) && unicode.IsLower(runes[i+1])))
		if begins {
			out = append(out, '_')
		}
		out = append(out, unicode.ToLower(r))
	}
	return string(out)
}
