package reserve

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// reserves is the environment variable that makes the test binary act as another process: it reserves the port in the
// variable's value.
const reserves = "RUNNEL_TEST_RESERVES"

func TestMain(m *testing.M) {
	if port, err := strconv.Atoi(os.Getenv(reserves)); err == nil {
		if reserve(filepath.Join(os.TempDir(), "runnel-ports"), port) {
			os.Exit(0)
		}
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// played returns whether another process can reserve a port.
func played(t *testing.T, port int) bool {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	other := exec.CommandContext(t.Context(), path)
	other.Env = append(os.Environ(), reserves+"="+strconv.Itoa(port))
	return other.Run() == nil
}

func TestAnAddressIsReturnedOnceAndCanBeUsed(t *testing.T) {
	seen := map[string]bool{}
	for range 50 {
		address, err := Address()
		require.NoError(t, err)
		require.False(t, seen[address])
		seen[address] = true
		require.True(t, strings.HasPrefix(address, "127.0.0.1:"))
		listener, err := net.Listen("tcp", address)
		require.NoError(t, err)
		require.NoError(t, listener.Close())
	}
}

func TestOtherProcessesGetOtherPorts(t *testing.T) {
	port, err := Port()
	require.NoError(t, err)
	require.False(t, played(t, port))
	require.False(t, reserve(t.TempDir(), port), "nor is it returned again here")
	locks.Lock()
	require.NoError(t, locks.held[port].Close())
	delete(locks.held, port)
	locks.Unlock()
	require.True(t, played(t, port), "it is given back with the process that has it")
}

func TestAPortThatSomebodyListensOnIsNotFree(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	require.False(t, free(listener.Addr().(*net.TCPAddr).Port))
}
