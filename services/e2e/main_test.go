package e2e_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/services/e2e/launch"
)

// workshop is where programs are built, each once, for all tests that start processes.
var workshop struct {
	sync.Mutex

	dir   string
	built launch.Binaries
}

func TestMain(m *testing.M) {
	code := m.Run()
	if workshop.dir != "" {
		_ = os.RemoveAll(workshop.dir)
	}
	os.Exit(code)
}

// binaries returns the paths of programs, and builds those that no test has requested yet.
func binaries(t *testing.T, names ...string) launch.Binaries {
	t.Helper()
	workshop.Lock()
	defer workshop.Unlock()
	if workshop.dir == "" {
		dir, err := os.MkdirTemp("", "runnel-e2e-") //nolint:usetesting // outlives the test that happens to build first
		require.NoError(t, err)
		workshop.dir, workshop.built = dir, launch.Binaries{}
	}
	for _, name := range names {
		if _, done := workshop.built[name]; done {
			continue
		}
		// The test's context is not used: a test that is cut off must not cancel the build for others.
		built, err := launch.Build(context.Background(), workshop.dir, "", name)
		require.NoError(t, err, fmt.Sprint("build ", name))
		workshop.built[name] = built[name]
	}
	return workshop.built
}
