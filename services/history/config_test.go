package history

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A database that cannot be opened is no store: a caller that closes what it got must not be given a nil pointer.
func TestADatabaseThatCannotBeOpenedIsNoStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, database := range map[string]string{
		"sqlite":     "sqlite:" + filepath.Join(file, "history.db"),
		"postgres":   "postgres://nobody@127.0.0.1:1/nothing?connect_timeout=1",
		"postgresql": "postgresql://%",
		"unknown":    "mysql://root@127.0.0.1",
		"none":       "",
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), Config{Database: database}, 4, slog.New(slog.DiscardHandler))
			require.Error(t, err)
			require.True(t, s == nil, "%T", s) //nolint:testifylint // Nil also accepts an interface that holds a nil pointer
		})
	}
}
