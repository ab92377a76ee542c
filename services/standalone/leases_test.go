package standalone

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/history"
)

// A process that was killed leaves leases behind. The next one on the same data directory does not wait for them: here they last
// longer than the test.
func TestTheLeasesOfAKilledProcessAreNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	cfg := configure(t, dir)
	store, err := history.Open(t.Context(), history.Config{Database: "sqlite:" + filepath.Join(dir, "history.db")}, cfg.NATS.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	answer, err := store.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "killed", TtlMs: 3_600_000})
	require.NoError(t, err)
	require.Len(t, answer.GetHeld(), 2)
	require.NoError(t, store.Close())

	s, err := New(t.Context(), cfg, telemetry.Discard())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		cancel()
		require.NoError(t, <-ended)
	}()
	require.Equal(t, uint64(1), submit(t, s, "0192f3c0-0000-7000-8000-000000000001").GetSeq())
}

// submit creates a conversation and returns the outcome.
func submit(t *testing.T, s *Standalone, id string) *conversationv1.Outcome {
	t.Helper()
	var answer *deliveryv1.SubmitResponse
	require.Eventually(t, func() bool { // it is refused until the worker runs
		var err error
		answer, err = s.delivery.Submit(t.Context(), &deliveryv1.SubmitRequest{Sender: "ann", CommandId: id, Body: &conversationv1.Body{
			Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: "g"}},
		}})
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return answer.GetOutcome()
}

// Only a database in the data directory is covered by its lock.
func TestOnlyADatabaseInTheDirectoryIsLocked(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	require.NoError(t, os.Symlink(other, filepath.Join(dir, "link")))
	for database, within := range map[string]bool{
		"sqlite:" + dir + "/history.db":      true,
		"sqlite:" + dir + "/sub/history.db":  true,
		"sqlite://" + dir + "/history.db":    true,
		"sqlite:" + dir + "/../history.db":   false,
		"sqlite:" + other + "/history.db":    false,
		"sqlite:" + dir + "/link/history.db": false,
		"sqlite:" + dir + "-2/history.db":    false,
		"postgres://u@host/db":               false,
	} {
		require.Equal(t, within, isWithin(dir, database), database)
	}
}
