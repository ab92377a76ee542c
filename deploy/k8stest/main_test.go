package k8stest

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/runnelhq/runnel/deploy/k8stest/controlplane"
)

// cluster is what every test installs into; each has a namespace of its own.
var cluster *controlplane.ControlPlane

// interrupted ends with the first interrupt, which also ends the cluster.
var interrupted context.Context

// zones are uneven on purpose: filling nodes evenly is not the same as spreading over zones.
var zones = map[string][]string{
	"zone-a": {"a1", "a2", "a3"},
	"zone-b": {"b1", "b2"},
	"zone-c": {"c1"},
}

func TestMain(m *testing.M) {
	var stop context.CancelFunc
	interrupted, stop = signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) //nolint:fatcontext // TestMain has no other way to the tests
	code, err := runTests(interrupted, m)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// runTests runs the tests in a new cluster, whose logs are kept when something fails.
func runTests(ctx context.Context, m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "k8stest-")
	if err != nil {
		return 1, fmt.Errorf("make a directory for the cluster: %w", err)
	}
	defer func() {
		if code == 0 && err == nil {
			err = os.RemoveAll(dir)
			return
		}
		fmt.Fprintln(os.Stderr, "the logs of the cluster are in", dir)
	}()
	began := time.Now()
	cluster, err = controlplane.Start(ctx, controlplane.Config{Binaries: root(".tools", "k8s"), Dir: dir})
	if err != nil {
		return 1, fmt.Errorf("start a control plane (scripts/k8s.sh builds its programs): %w", err)
	}
	defer func() {
		if stopErr := cluster.Stop(); stopErr != nil && err == nil {
			err = stopErr
		}
	}()
	if err := cluster.AddNodes(ctx, zones); err != nil {
		return 1, err
	}
	if err := addStorageClass(ctx); err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "control plane with %d zones running after %.1f s\n", len(zones), time.Since(began).Seconds())
	return m.Run(), nil
}

// root is a path in the repository; tests run in the directory of their package.
func root(elements ...string) string {
	path, err := filepath.Abs(filepath.Join(append([]string{"..", ".."}, elements...)...))
	if err != nil {
		panic(err) // the working directory is gone
	}
	return path
}
