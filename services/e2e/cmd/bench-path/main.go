// Command bench-path counts what one message costs on its way through standalone; see services/e2e/bench/README.md.
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
	"github.com/runnelhq/runnel/services/e2e/bench/messagepath"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

func main() {
	var cfg messagepath.Config
	kong.Parse(&cfg, settings.VersionFlag(), kong.Name("bench-path"),
		kong.Description("Counts wake-ups, system calls, allocations and bytes of one message on its way through standalone."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, cfg)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-path:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg messagepath.Config) error {
	table, err := messagepath.Measure(ctx, cfg, os.Stderr)
	if err != nil {
		return err
	}
	table.Print(os.Stdout, cfg.Detail)
	if cfg.JSON != "" {
		err = table.WriteJSON(cfg.JSON)
	}
	if cfg.Write {
		workspace, failed := launch.Workspace(ctx)
		if failed != nil {
			return errors.Join(err, failed)
		}
		err = errors.Join(err, table.WriteREADME(filepath.Join(workspace, "services", "e2e", "bench", "README.md")))
	}
	return err
}
