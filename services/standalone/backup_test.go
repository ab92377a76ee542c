package standalone

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/history"
)

func TestARestoreNeedsADatabaseThatNobodyUses(t *testing.T) {
	restore := func(d Data, file string) error {
		return d.Restore(t.Context(), file, io.Discard, slog.New(slog.DiscardHandler))
	}
	cfg := configure(t, filepath.Join(t.TempDir(), "data"))
	d := Data{DataDir: cfg.DataDir}
	d.NATS.Partitions = cfg.NATS.Partitions
	require.ErrorIs(t, restore(d, ""), os.ErrNotExist)
	require.NoFileExists(t, filepath.Join(cfg.DataDir, databaseName), "a restore does not make an installation")

	s, err := New(t.Context(), cfg, telemetry.Discard())
	require.NoError(t, err)
	backup := filepath.Join(t.TempDir(), "backup.db")
	require.NoError(t, d.Backup(t.Context(), backup, io.Discard), "while it runs")
	require.ErrorContains(t, restore(d, backup), "in use by another runnel")
	require.ErrorContains(t, restore(d, ""), "in use by another runnel")
	s.close()
	require.NoError(t, restore(d, ""))
	require.NoError(t, restore(d, backup))

	d.History.EraseLedger = filepath.Join(t.TempDir(), "lost.jsonl")
	require.ErrorIs(t, restore(d, backup), os.ErrNotExist, "without the ledger, erased content would be readable again")
	d = Data{DataDir: t.TempDir(), NATS: d.NATS, History: history.Config{Database: "postgres://runnel@localhost/runnel"}}
	require.ErrorIs(t, restore(d, backup), history.ErrNotSQLite)
	require.ErrorIs(t, d.Backup(t.Context(), backup+"2", io.Discard), history.ErrNotSQLite)
}
