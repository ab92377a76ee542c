package readme

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// checker compares the programs that a page starts with the repository.
type checker struct {
	root string // of the repository
	dir  string // directory in which the page's blocks were run
	// programs is the directory of Runnel's programs. helm is the path of helm; empty if helm is not built.
	programs, helm string
}

// check returns an error if the invocation would fail, or names something that does not exist.
func (c *checker) check(ctx context.Context, i invocation) error {
	switch {
	case slices.Contains(own, i.program):
		return c.settings(ctx, i)
	case i.program == "make":
		return c.target(ctx, i)
	case i.program == "helm":
		return c.chart(ctx, i)
	}
	return c.files(i)
}

// settings makes a program of Runnel parse its command line and its variables, and print the settings.
func (c *checker) settings(ctx context.Context, i invocation) error {
	if !slices.Contains(i.args, "--help") && !slices.Contains(i.args, "--version") && !slices.Contains(i.args, "--print-config") {
		i.args = append(slices.Clone(i.args), "--print-config")
	}
	command := exec.CommandContext(ctx, filepath.Join(c.programs, i.program), i.args...)
	command.Dir = c.dir
	command.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + c.dir}
	for name, value := range i.environment {
		command.Env = append(command.Env, name+"="+value)
	}
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", i, err, output)
	}
	return nil
}

// target checks that the make targets exist in the Makefile. Arguments that make run passes on are checked as settings.
func (c *checker) target(ctx context.Context, i invocation) error {
	makefile, err := os.ReadFile(filepath.Join(c.root, "Makefile"))
	if err != nil {
		return err
	}
	for _, arg := range i.args {
		if args, isArgs := strings.CutPrefix(arg, "ARGS="); isArgs && i.args[0] == "run" {
			if err := c.settings(ctx, invocation{program: "runnel", args: strings.Fields(args)}); err != nil {
				return err
			}
		}
		if !strings.Contains(arg, "=") && !regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(arg)+`:`).Match(makefile) {
			return fmt.Errorf("%v: the Makefile has no target %s", i, arg)
		}
	}
	return nil
}

// chart renders the chart that the command would install.
func (c *checker) chart(ctx context.Context, i invocation) error {
	if c.helm == "" || (i.args[0] != "install" && i.args[0] != "upgrade") {
		return nil
	}
	args := []string{"template"}
	for _, arg := range i.args[1:] {
		if arg != "--reset-then-reuse-values" && arg != "--create-namespace" && arg != "--wait" {
			args = append(args, arg)
		}
	}
	command := exec.CommandContext(ctx, c.helm, args...)
	command.Dir = c.root
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", i, err, output)
	}
	return nil
}

// ofTheRepository matches names of files and directories that must exist in the repository.
var ofTheRepository = regexp.MustCompile(`^(?:\./)?((?:deploy|services|pkg|proto|scripts)/[\w./-]+)$`)

// files checks that the files in the arguments exist.
func (c *checker) files(i invocation) error {
	for _, arg := range i.args {
		if match := ofTheRepository.FindStringSubmatch(arg); match != nil && i.program != "kubectl" || match != nil && strings.HasSuffix(arg, ".yaml") {
			if _, err := os.Stat(filepath.Join(c.root, match[1])); err != nil {
				return fmt.Errorf("%v: %w", i, err)
			}
		}
	}
	return nil
}
