package deploytest

import (
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"
)

// The NATS configurations without keys are read by a server as they stand, with the environment that their own comments give:
// to NATS a path that begins with a dot is no string, there and here, and 2m is a number. The secured ones run in TestTheSecuredSystem.
func TestNATSReadsItsFiles(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "deploy", "nats")
	single, err := server.ProcessConfigFile(filepath.Join(dir, "single.conf"))
	require.NoError(t, err)
	require.Equal(t, 2*time.Minute, single.SyncInterval)

	settings := regexp.MustCompile(`\b([A-Z]+)=(\S+)`).FindAllStringSubmatch(read(t, filepath.Join(dir, "cluster.conf")), -1)
	require.Len(t, settings, 4)
	for _, setting := range settings {
		t.Setenv(setting[1], setting[2])
	}
	cluster, err := server.ProcessConfigFile(filepath.Join(dir, "cluster.conf"))
	require.NoError(t, err)
	require.True(t, cluster.SyncAlways)
	require.Len(t, cluster.Routes, 3)
}
