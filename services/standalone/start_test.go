package standalone

import (
	"context"
	"database/sql"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/pkg/settings"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// configure returns the default configuration, with its own ports and all data in one directory.
func configure(t *testing.T, dir string) Config {
	t.Helper()
	var cfg Config
	parser, err := settings.New("test", "", &cfg)
	require.NoError(t, err)
	_, err = parser.Parse(nil)
	require.NoError(t, err)
	cfg.DataDir, cfg.NATS.Partitions = dir, 2
	cfg.Gateway.Listen, cfg.RPC.Listen, cfg.Admin.Listen = "127.0.0.1:0", "127.0.0.1:0", ""
	return cfg
}

func TestAStandaloneHasTheLevelOfItsBuild(t *testing.T) {
	s, err := New(t.Context(), configure(t, t.TempDir()), telemetry.Discard())
	require.NoError(t, err)
	defer s.close()
	level, err := s.store.Level(t.Context())
	require.NoError(t, err)
	require.Equal(t, conversation.MaxLevel(), level)
}

// A database in the old event format is refused with a message that says what to do. After the database is removed, its
// directory can be used again.
func TestADataDirectoryOfTheFormerFormatIsRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "history.db")
	db, err := sql.Open("sqlite", path)
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), storetest.FormerEvents)
	require.NoError(t, err)
	require.NoError(t, db.Close())
	_, err = New(t.Context(), configure(t, dir), telemetry.Discard())
	require.ErrorContains(t, err, "open the history: ")
	require.ErrorContains(t, err, "start with a new data directory")
	require.NoError(t, os.Remove(path))
	s, err := New(t.Context(), configure(t, dir), telemetry.Discard())
	require.NoError(t, err)
	s.close()
}

// A server that fails to start releases every address it has opened.
func TestAServerThatDoesNotStartKeepsNoAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for name, spoil := range map[string]func(cfg *Config){
		"the admin address is taken": func(cfg *Config) { cfg.Admin.Listen = taken.Addr().String() },
		"the rpc address is taken":   func(cfg *Config) { cfg.RPC.Listen = taken.Addr().String() },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := configure(t, t.TempDir())
			cfg.Gateway.Listen, cfg.RPC.Listen = free(t), free(t)
			spoil(&cfg)
			_, err := New(t.Context(), cfg, telemetry.Discard())
			require.ErrorContains(t, err, "address already in use")
			for _, address := range []string{cfg.Gateway.Listen, cfg.RPC.Listen} {
				if address == taken.Addr().String() {
					continue
				}
				listener, err := net.Listen("tcp", address)
				require.NoError(t, err)
				require.NoError(t, listener.Close())
			}
		})
	}
}

// free returns an address that no process listens on.
func free(t *testing.T) string {
	t.Helper()
	address, err := reserve.Address()
	require.NoError(t, err)
	return address
}

// The banner waits for this: a server that says it is ready commits commands.
func TestReadyMeansThatEveryPartitionIsWorkedOn(t *testing.T) {
	s, err := New(t.Context(), configure(t, t.TempDir()), telemetry.Discard())
	require.NoError(t, err)
	expired, stop := context.WithCancel(t.Context())
	stop()
	require.Error(t, s.WaitReady(expired), "nothing runs yet")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	require.NoError(t, s.WaitReady(t.Context()))
	require.Equal(t, s.partitions, s.delivery.Running())
	cancel()
	require.NoError(t, <-ended)
}
