package mutate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"
)

// Result is the result of measuring one package.
type Result struct {
	// Package is the package's path in the repository.
	Package string
	// Mutants is the number of mistakes made.
	Mutants int
	// Left are the mistakes that no test noticed.
	Left []Mutant
}

// Noticed returns the share of mistakes that the tests noticed.
func (r Result) Noticed() float64 {
	if r.Mutants == 0 {
		return 1
	}
	return float64(r.Mutants-len(r.Left)) / float64(r.Mutants)
}

// Options are the options of Run.
type Options struct {
	// Parallel is the number of concurrent test runs. Defaults to 1.
	Parallel int
	// Progress receives a line for each unnoticed mistake.
	Progress io.Writer
}

// Time limits of a run with a mistake, relative to a run without: it may be slower, but not much.
const (
	slowdown = 8
	shortest = 10 * time.Second
)

// Run measures a package.
func Run(ctx context.Context, path string, options Options) (Result, error) {
	s, err := load(ctx, path)
	if err != nil {
		return Result{}, err
	}
	dir, err := os.MkdirTemp("", "runnel-mutate-")
	if err != nil {
		return Result{}, fmt.Errorf("make room for mutants: %w", err)
	}
	defer os.RemoveAll(dir)
	binary, err := s.build(ctx, dir)
	if err != nil {
		return Result{}, err
	}
	began := time.Now()
	passed, output, err := s.test(ctx, binary, 0, 10*time.Minute)
	if err != nil {
		return Result{}, err
	}
	if !passed {
		return Result{}, fmt.Errorf("the tests of %s fail without a mistake:\n%s", path, output)
	}
	limit := max(shortest, slowdown*time.Since(began))
	return s.runAll(ctx, binary, limit, options)
}

func (s *subject) runAll(ctx context.Context, binary string, limit time.Duration, options Options) (Result, error) {
	mutants := s.mutants()
	survived := make([]bool, len(mutants))
	errs := make([]error, len(mutants))
	turns := make(chan int)
	var workers sync.WaitGroup
	for range max(1, options.Parallel) {
		workers.Go(func() {
			for i := range turns {
				survived[i], _, errs[i] = s.test(ctx, binary, mutants[i].number, limit)
				if survived[i] && errs[i] == nil {
					fmt.Fprintf(options.Progress, "left: %s (line %d)\n", mutants[i].Key(), mutants[i].Line)
				}
			}
		})
	}
	for i := range mutants {
		turns <- i
	}
	close(turns)
	workers.Wait()
	result := Result{Package: s.path, Mutants: len(mutants)}
	for i, m := range mutants {
		if survived[i] {
			result.Left = append(result.Left, *m)
		}
	}
	return result, errors.Join(errs...)
}

// test runs the tests with the mistake of this number; 0 means none. Tests that exceed the time limit have noticed the
// mistake.
func (s *subject) test(ctx context.Context, binary string, number int, limit time.Duration) (passed bool, output []byte, err error) {
	short, cancel := context.WithTimeout(ctx, limit+shortest) // used if the binary's own time limit does not end it
	defer cancel()
	arguments := []string{"-test.short", "-test.failfast", "-test.timeout=" + limit.String()}
	if slices.Contains(s.testImports, "pgregory.net/rapid") {
		arguments = append(arguments, "-rapid.nofailfile") // otherwise rapid would save the failing input in the source tree
	}
	run := exec.CommandContext(short, binary, arguments...)
	run.Dir = s.Dir
	run.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, number))
	output, err = run.CombinedOutput()
	if ctx.Err() != nil {
		return false, nil, ctx.Err() //nolint:wrapcheck // the caller's own error
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return false, nil, fmt.Errorf("run the tests of %s: %w", s.path, err)
	}
	return err == nil, output, nil
}
