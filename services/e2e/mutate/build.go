package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// subject is a package whose tests are measured.
type subject struct {
	Dir     string
	Name    string
	GoFiles []string

	testImports []string

	path    string // path in the repository
	sources map[string]string
	sites   map[string][]*site // by file name
}

// load reads a package and finds its sites.
func load(ctx context.Context, path string) (*subject, error) {
	const format = `{{.Dir}}{{"\n"}}{{.Name}}{{"\n"}}{{join .GoFiles " "}}{{"\n"}}{{join .TestImports " "}} {{join .XTestImports " "}}`
	list, err := exec.CommandContext(ctx, "go", "list", "-f", format, module+path).Output()
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", path, err)
	}
	line := strings.Split(string(list), "\n")
	s := &subject{
		Dir: line[0], Name: line[1], GoFiles: strings.Fields(line[2]), testImports: strings.Fields(line[3]),
		path: path, sources: map[string]string{}, sites: map[string][]*site{},
	}
	last := 0
	for _, name := range s.GoFiles {
		source, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, source, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		if ast.IsGenerated(file) {
			continue
		}
		f := &finder{file: path + "/" + name, source: string(source), fset: fset, next: func() int { last++; return last }}
		f.find(file)
		s.sources[name], s.sites[name] = f.source, f.sites
	}
	return s, nil
}

// mutants returns the mistakes that are compiled in, in the order of the files.
func (s *subject) mutants() []*Mutant {
	var all []*Mutant
	for _, sites := range s.sites {
		for _, at := range sites {
			all = append(all, at.mutants...)
		}
	}
	slices.SortFunc(all, func(a, b *Mutant) int { return a.number - b.number })
	return all
}

// build compiles the tests with all mistakes. Mistakes that do not compile are left out.
func (s *subject) build(ctx context.Context, dir string) (binary string, err error) {
	binary = filepath.Join(dir, "tests")
	for {
		overlay, err := s.write(dir)
		if err != nil {
			return "", err
		}
		compile := exec.CommandContext(ctx, "go", "test", "-c", "-vet=off", "-gcflags=-e", "-overlay="+overlay, "-o", binary, module+s.path)
		compile.Dir = s.Dir
		output, err := compile.CombinedOutput()
		if err == nil {
			return binary, nil
		}
		if ctx.Err() != nil {
			return "", ctx.Err() //nolint:wrapcheck // the caller's own error
		}
		if !s.leaveOut(string(output)) {
			return "", fmt.Errorf("compile the tests of %s: %w\n%s", s.path, err, output)
		}
	}
}

// write writes the files to compile, and the overlay file that makes the compiler read them instead of the package's
// files.
func (s *subject) write(dir string) (overlay string, err error) {
	replace := map[string]string{filepath.Join(s.Dir, switchFile): filepath.Join(dir, switchFile)}
	failed := os.WriteFile(filepath.Join(dir, switchFile), []byte(switches(s.Name)), 0o600)
	for name, source := range s.sources {
		replace[filepath.Join(s.Dir, name)] = filepath.Join(dir, name)
		failed = errors.Join(failed, os.WriteFile(filepath.Join(dir, name), []byte(render(source, s.sites[name])), 0o600))
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	overlay = filepath.Join(dir, "overlay.json")
	if err := errors.Join(failed, err, os.WriteFile(overlay, list, 0o600)); err != nil {
		return "", fmt.Errorf("write mutants of %s: %w", s.path, err)
	}
	return overlay, nil
}

var complaint = regexp.MustCompile(`(?m)([^/\s]+\.go):(\d+)(?::\d+)?: `)

// leaveOut removes the sites for which the compiler reports an error, and returns whether there were any.
func (s *subject) leaveOut(messages string) (removed bool) {
	for _, match := range complaint.FindAllStringSubmatch(messages, -1) {
		name := match[1]
		line, err := strconv.Atoi(match[2])
		if err != nil {
			continue
		}
		before := len(s.sites[name])
		s.sites[name] = slices.DeleteFunc(s.sites[name], func(at *site) bool { return at.mutants[0].Line == line })
		removed = removed || len(s.sites[name]) < before
	}
	return removed
}
