package torture

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// mounted gives a volume, where the machine allows it.
func mounted(t *testing.T) *volume {
	t.Helper()
	all, err := mountVolumes(t.TempDir(), "part")
	if errors.Is(err, ErrSkipped) {
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, all.unmount()) })
	require.NoError(t, os.MkdirAll(all.data("part"), 0o755))
	return all["part"]
}

func write(t *testing.T, path, text string, sync bool) {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	defer file.Close()
	_, err = file.WriteString(text)
	require.NoError(t, err)
	if sync {
		require.NoError(t, file.Sync())
	}
}

func TestALossOfPowerKeepsWhatWasSyncedAndNothingElse(t *testing.T) {
	v := mounted(t)
	synced, lazy := filepath.Join(v.dir, "part", "synced"), filepath.Join(v.dir, "part", "lazy")
	write(t, synced, "kept", true)
	write(t, lazy, "lost", false)
	require.NoError(t, v.losePower())
	_, err := os.Create(filepath.Join(v.dir, "late"))
	require.ErrorIs(t, err, syscall.EIO)
	require.NoError(t, v.unmount())
	require.NoError(t, v.mount())
	text, err := os.ReadFile(synced)
	require.NoError(t, err)
	require.Equal(t, "kept", string(text))
	text, err = os.ReadFile(lazy)
	require.NotEqual(t, "lost", string(text), "it has survived: a loss of power shows nothing here (%v)", err)
}

func TestAFullVolumeTakesNothingUntilItIsFreed(t *testing.T) {
	v := mounted(t)
	require.NoError(t, v.fill())
	path := filepath.Join(v.dir, "part", "file")
	file, err := os.Create(path)
	if err == nil {
		_, err = file.Write(make([]byte, 64<<10))
		require.NoError(t, file.Close())
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, v.free())
	write(t, path, "there is room", true)
}

func TestAVolumeThatIsInUseIsTakenAwayAllTheSame(t *testing.T) {
	v := mounted(t)
	file, err := os.Create(filepath.Join(v.dir, "open"))
	require.NoError(t, err)
	defer file.Close()
	v.patience = 0
	require.ErrorIs(t, v.unmount(), syscall.EBUSY)
	_, err = os.Stat(filepath.Join(v.dir, "open"))
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, v.unmount(), "a second time changes nothing")
}
