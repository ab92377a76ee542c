// Command bench measures Runnel; see services/e2e/bench/README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/services/e2e/bench"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

func main() {
	var cfg bench.Config
	kong.Parse(&cfg, settings.VersionFlag(), kong.Name("bench"), kong.Description("Measures Runnel against its targets: latency, throughput, CPU and memory."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg bench.Config) error {
	if cfg.Compare {
		return compare(ctx, cfg)
	}
	report, err := bench.Run(ctx, cfg, os.Stderr)
	if report == nil {
		return err
	}
	report.Print(os.Stdout)
	if cfg.JSON != "" {
		err = errors.Join(err, report.WriteJSON(cfg.JSON))
	}
	if cfg.Write && err == nil {
		workspace, failed := launch.Workspace(ctx)
		if failed != nil {
			return failed
		}
		err = report.WriteREADME(filepath.Join(workspace, "services", "e2e", "bench", "README.md"))
	}
	return err
}

func compare(ctx context.Context, cfg bench.Config) error {
	comparison, err := bench.Compare(ctx, cfg, os.Stderr)
	if comparison == nil {
		return err
	}
	comparison.Print(os.Stdout)
	if cfg.JSON != "" {
		err = errors.Join(err, comparison.WriteJSON(cfg.JSON))
	}
	return err
}
