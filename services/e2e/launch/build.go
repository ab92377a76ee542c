package launch

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The programs of a suite.
const (
	Gateway    = "runnel-gateway"
	Delivery   = "runnel-delivery"
	History    = "runnel-history"
	Standalone = "runnel"
	NATSServer = "nats-server"
	// SkewClient is the client for tests of mixed versions; it is not part of a suite.
	SkewClient = "skewclient"
)

var packages = map[string]string{
	Gateway:    "github.com/runnelhq/runnel/services/gateway/cmd/runnel-gateway",
	Delivery:   "github.com/runnelhq/runnel/services/delivery/cmd/runnel-delivery",
	History:    "github.com/runnelhq/runnel/services/history/cmd/runnel-history",
	Standalone: "github.com/runnelhq/runnel/services/standalone/cmd/runnel",
	NATSServer: "github.com/nats-io/nats-server/v2",
	SkewClient: "github.com/runnelhq/runnel/services/e2e/cmd/skewclient",
}

// Binaries contains the paths of built programs, by name.
type Binaries map[string]string

// Build compiles programs into dir, with build tags separated by commas. It needs the go command, and must run in a
// directory of the workspace. Packages that did not change are not compiled again.
func Build(ctx context.Context, dir, tags string, programs ...string) (Binaries, error) {
	workspace, err := Workspace(ctx)
	if err != nil {
		return nil, err
	}
	return BuildFrom(ctx, workspace, dir, tags, nil, programs...)
}

// BuildFrom is Build with the source in another workspace. environment is added to the environment of the go command.
func BuildFrom(ctx context.Context, workspace, dir, tags string, environment []string, programs ...string) (Binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find the directory for programs: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory for programs: %w", err)
	}
	binaries := make(Binaries, len(programs))
	for _, program := range programs {
		binaries[program] = filepath.Join(dir, program)
		command := exec.CommandContext(ctx, "go", "build", "-tags", tags, "-o", binaries[program], packages[program])
		command.Dir = filepath.Join(workspace, "services", "e2e") // the only module from which all programs can be built
		command.Env = append(os.Environ(), environment...)
		// Build one program at a time: linking two concurrently needs more memory than small machines have.
		if output, err := command.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", program, err, bytes.TrimSpace(output))
		}
	}
	return binaries, nil
}

// Workspace returns the root of the workspace that contains the current directory.
func Workspace(ctx context.Context) (string, error) {
	output, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "-m", "github.com/runnelhq/runnel/services/e2e").Output()
	if err != nil {
		return "", fmt.Errorf("find the workspace: run this inside of it: %w", err)
	}
	return filepath.Dir(filepath.Dir(strings.TrimSpace(string(output)))), nil
}
