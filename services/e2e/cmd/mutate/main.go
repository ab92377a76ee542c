// Command mutate measures which mistakes in pure code the tests notice; see services/e2e/mutate/README.md.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/e2e/launch"
	"github.com/runnelhq/runnel/services/e2e/mutate"
)

type config struct {
	Packages []string `arg:"" optional:"" help:"Packages to measure, by their path in the repository. Defaults to all that have a goal."`
	Parallel int      `help:"Test runs at a time." default:"2"`
	Write    bool     `help:"Write the tables of README.md. Mutants that are new in it have no reason; fill it in."`
}

func main() {
	var cfg config
	kong.Parse(&cfg, settings.VersionFlag(), kong.Name("mutate"), kong.Description("Makes small mistakes in the code, one at a time, and reports those that no test notices."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) error {
	workspace, err := launch.Workspace(ctx)
	if err != nil {
		return err
	}
	report, err := mutate.Open(filepath.Join(workspace, "services", "e2e", "mutate", "README.md"))
	if err != nil {
		return err
	}
	packages := cfg.Packages
	if len(packages) == 0 {
		packages = mutate.Packages
	}
	for _, path := range packages {
		result, err := mutate.Run(ctx, strings.Trim(path, "./"), mutate.Options{Parallel: cfg.Parallel, Progress: os.Stderr})
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "%s: %d of %d mutants noticed (%.0f%%)\n", result.Package, result.Mutants-len(result.Left), result.Mutants, 100*result.Noticed())
		report.Put(result)
	}
	if cfg.Write {
		if err := report.Write(); err != nil {
			return err
		}
	}
	return report.Verdict()
}
