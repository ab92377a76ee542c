package controlplane

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errNotYet = errors.New("not yet")

func never(context.Context) error { return errNotYet }

func TestAProgramThatEndsEarlyIsExplainedByItsLog(t *testing.T) {
	p, err := start(t.TempDir(), "broken", "/bin/sh", "-c", "echo the port is taken; exit 3")
	require.NoError(t, err)
	err = p.await(t.Context(), never)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "the port is taken")
	require.ErrorContains(t, p.stop(), "ended by itself", "a program that crashed must not go unnoticed")
}

func TestAProgramThatIsNeverReadyIsGivenUp(t *testing.T) {
	p, err := start(t.TempDir(), "slow", "/bin/sh", "-c", "echo still reading; exec sleep 600")
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollInterval)
	defer cancel()
	err = p.await(ctx, never)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, errNotYet)
	require.NoError(t, p.stop())
	require.Error(t, p.os.Signal(os.Interrupt), "it has been waited for")
}

func TestWhatWasStartedIsStoppedWhenTheRestCannotBe(t *testing.T) {
	binaries, dir := t.TempDir(), t.TempDir()
	// An etcd that listens to nobody.
	script := "#!/bin/sh\necho $$ > " + filepath.Join(dir, "pid") + "\nexec sleep 600\n"
	require.NoError(t, os.WriteFile(filepath.Join(binaries, "etcd"), []byte(script), 0o700))
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := Start(ctx, Config{Binaries: binaries, Dir: dir})
		failed <- err
	}()
	var pid []byte
	require.Eventually(t, func() bool {
		pid, _ = os.ReadFile(filepath.Join(dir, "pid"))
		return bytes.HasSuffix(pid, []byte("\n"))
	}, time.Minute, time.Millisecond)
	cancel()
	require.ErrorContains(t, <-failed, "etcd is not ready")
	require.NoDirExists(t, filepath.Join("/proc", string(pid[:len(pid)-1])))
}
