package mutate

import (
	"go/ast"
	"go/token"
	"strings"
)

// site is a piece of a file. It is replaced by text that makes a mistake if the mistake's number is selected.
type site struct {
	from, to int // offsets in the file
	mutants  []*Mutant
	// wrap returns the replacement. inner is the text of the piece, in which inner sites were already replaced.
	wrap func(inner string) string
}

// finder collects the sites of a file.
type finder struct {
	file   string
	source string
	fset   *token.FileSet
	fn     string
	next   func() int // returns the number for the next mutant
	seen   map[string]int
	sites  []*site
}

func (f *finder) text(n ast.Node) string {
	return f.source[f.fset.Position(n.Pos()).Offset:f.fset.Position(n.End()).Offset]
}

func (f *finder) add(n ast.Node, change string, wrap func(number int, inner string) string) {
	m := &Mutant{File: f.file, Func: f.fn, Line: f.fset.Position(n.Pos()).Line, Change: change, number: f.next()}
	f.seen[m.Key()]++
	m.Nth = f.seen[m.Key()]
	f.sites = append(f.sites, &site{
		from: f.fset.Position(n.Pos()).Offset, to: f.fset.Position(n.End()).Offset, mutants: []*Mutant{m},
		wrap: func(inner string) string { return wrap(m.number, inner) },
	})
}

// find collects the sites of all functions of a file.
func (f *finder) find(file *ast.File) {
	for _, decl := range file.Decls {
		if fn, is := decl.(*ast.FuncDecl); is && fn.Body != nil {
			f.fn, f.seen = nameOf(fn), map[string]int{}
			ast.Inspect(fn.Body, f.visit)
		}
	}
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	receiver := fn.Recv.List[0].Type
	if pointer, is := receiver.(*ast.StarExpr); is {
		receiver = pointer.X
	}
	if generic, is := receiver.(*ast.IndexExpr); is {
		receiver = generic.X
	}
	if name, is := receiver.(*ast.Ident); is {
		return name.Name + "." + fn.Name.Name
	}
	return fn.Name.Name
}

func (f *finder) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GenDecl:
		return n.Tok == token.VAR // a constant cannot depend on the environment
	case *ast.ReturnStmt:
		return !besideError(n)
	case *ast.IfStmt:
		if planted(n.Cond) {
			return false
		}
		f.condition(n.Cond)
	case *ast.ForStmt:
		f.condition(n.Cond)
	case *ast.BinaryExpr:
		f.binary(n)
	case *ast.Ident:
		f.boolean(n)
	case *ast.BlockStmt:
		f.statements(n.List)
	case *ast.CaseClause:
		f.statements(n.Body)
	case *ast.CommClause:
		f.statements(n.Body)
	}
	return true
}

// besideError returns whether a statement returns constants and an error. Callers ignore the constants, so changing them
// has no effect.
func besideError(s *ast.ReturnStmt) bool {
	if len(s.Results) < 2 {
		return false
	}
	for _, result := range s.Results[:len(s.Results)-1] {
		if _, constant := result.(*ast.Ident); !constant {
			return false
		}
	}
	last, is := s.Results[len(s.Results)-1].(*ast.Ident)
	return !is || last.Name != "nil" && last.Name != "true" && last.Name != "false"
}

// planted returns whether a condition is the constant of a planted bug, which the torture run finds.
func planted(e ast.Expr) bool {
	if not, is := e.(*ast.UnaryExpr); is {
		e = not.X
	}
	name, is := e.(*ast.Ident)
	return is && strings.HasPrefix(strings.ToLower(name.Name), "bug")
}

// condition negates a condition that is not an operator expression.
func (f *finder) condition(cond ast.Expr) {
	switch cond.(type) {
	case nil, *ast.BinaryExpr:
	default:
		f.negate(cond)
	}
}

func (f *finder) negate(e ast.Expr) {
	f.add(e, "`"+oneLine(f.text(e))+"` negated", func(number int, inner string) string {
		return "(" + chosen(number) + " != (" + inner + "))"
	})
}

// bounds maps a comparison to the one whose bound is shifted by one.
var bounds = map[token.Token]string{token.LSS: "<=", token.LEQ: "<", token.GTR: ">=", token.GEQ: ">"}

func (f *finder) binary(e *ast.BinaryExpr) {
	left, right := f.text(e.X), f.text(e.Y)
	switch e.Op {
	case token.EQL, token.NEQ:
		f.negate(e)
	case token.LSS, token.LEQ, token.GTR, token.GEQ:
		f.negate(e)
		f.instead(e, left+" "+bounds[e.Op]+" "+right)
	case token.LAND, token.LOR:
		f.without(e.X, e.Op)
		f.without(e.Y, e.Op)
	case token.ADD:
		f.arithmetic(e, left+" - "+right)
	case token.SUB:
		f.arithmetic(e, left+" + "+right)
	default:
	}
}

// instead replaces a condition by another condition.
func (f *finder) instead(e ast.Expr, other string) {
	if strings.Contains(other, "\n") {
		return
	}
	f.add(e, "`"+oneLine(f.text(e))+"` becomes `"+oneLine(other)+"`", func(number int, inner string) string {
		return "(" + chosen(number) + " && (" + other + ") || !" + chosen(number) + " && (" + inner + "))"
	})
}

// without removes one side of && or ||.
func (f *finder) without(e ast.Expr, op token.Token) {
	if planted(e) {
		return
	}
	f.add(e, "`"+oneLine(f.text(e))+"` removed from "+op.String(), func(number int, inner string) string {
		if op == token.LAND {
			return "(" + chosen(number) + " || (" + inner + "))"
		}
		return "(!" + chosen(number) + " && (" + inner + "))"
	})
}

// arithmetic replaces a sum by a difference, or a difference by a sum. Both are evaluated, so they must not contain a
// call.
func (f *finder) arithmetic(e ast.Expr, other string) {
	calls := false
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name, is := n.Fun.(*ast.Ident)
			calls = calls || !is || name.Name != "len"
		case *ast.BasicLit:
			calls = calls || n.Kind == token.STRING
		}
		return !calls
	})
	if calls || strings.Contains(other, "\n") {
		return
	}
	f.add(e, "`"+oneLine(f.text(e))+"` becomes `"+oneLine(other)+"`", func(number int, inner string) string {
		return pick(number, inner, other)
	})
}

// boolean replaces true by false, and false by true.
func (f *finder) boolean(e *ast.Ident) {
	if e.Name == "true" || e.Name == "false" {
		f.negate(e)
	}
}

// statements removes statements.
func (f *finder) statements(list []ast.Stmt) {
	for _, s := range list {
		if !f.droppable(s) {
			continue
		}
		f.add(s, "`"+oneLine(f.text(s))+"` removed", func(number int, inner string) string {
			return "if !" + chosen(number) + " { " + inner + " }"
		})
	}
}

// droppable returns whether the code without a statement compiles and terminates. Statements that log are not measured,
// because no result depends on them.
func (f *finder) droppable(s ast.Stmt) bool {
	switch s := s.(type) {
	case *ast.ExprStmt:
		call, is := s.X.(*ast.CallExpr)
		return !is || !f.harmless(call)
	case *ast.AssignStmt:
		return s.Tok != token.DEFINE && !f.blank(s)
	case *ast.IncDecStmt, *ast.SendStmt, *ast.GoStmt:
		return true
	case *ast.BranchStmt:
		return s.Tok == token.CONTINUE || s.Tok == token.BREAK
	default:
		return false
	}
}

func (f *finder) blank(s *ast.AssignStmt) bool {
	for _, left := range s.Lhs {
		if name, is := left.(*ast.Ident); !is || name.Name != "_" {
			return false
		}
	}
	return true
}

// harmless returns whether a call locks or logs. Missing locks are found by the race detector, or by hanging tests.
func (f *finder) harmless(call *ast.CallExpr) bool {
	fun := f.text(call.Fun)
	_, method, qualified := cutLast(fun, ".")
	if !qualified {
		method = fun
	}
	switch method {
	case "Lock", "Unlock", "RLock", "RUnlock":
		return true
	case "Debug", "Info", "Warn", "Error":
		return strings.Contains(strings.ToLower(fun), "log")
	}
	return method == "panic"
}

func cutLast(text, sep string) (before, after string, found bool) {
	if at := strings.LastIndex(text, sep); at >= 0 {
		return text[:at], text[at+len(sep):], true
	}
	return "", text, false
}
