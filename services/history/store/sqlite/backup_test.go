package sqlite_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/sqlite"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// written is a database in use, in which a worker has made a group.
type written struct {
	*sqlite.Store

	t      *testing.T
	path   string
	worker *storetest.Worker
	id     string
}

func openAt(t *testing.T, path string) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: path}, storetest.Partitions, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func write(t *testing.T) *written {
	t.Helper()
	w := &written{t: t, path: filepath.Join(t.TempDir(), "history.db")}
	w.Store = openAt(t, w.path)
	w.worker = storetest.NewWorker(w.Store, 3, storetest.ClockAt(0))
	w.id = w.worker.Commit(t, w.worker.CreateGroup("alice", "g"))[0].GetConversationId()
	return w
}

func (w *written) send(n int) {
	w.t.Helper()
	for range n {
		w.worker.Commit(w.t, w.worker.Command(w.id, "alice", storetest.Message("hello")))
	}
}

func (w *written) back(file string) []*historyv1.BackupMark {
	w.t.Helper()
	marks, err := sqlite.Backup(w.t.Context(), w.path, file)
	require.NoError(w.t, err)
	return marks
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		all = append(all, entry.Name())
	}
	return all
}

func nothing(context.Context, string) error { return nil }

// A backup of a database that is written meanwhile is its state at one moment, and the marks are exactly of that moment.
func TestABackupIsOneMomentOfABusyDatabase(t *testing.T) {
	w := write(t)
	ctx, stop := context.WithCancel(t.Context())
	var writing sync.WaitGroup
	begun := make(chan struct{})
	writing.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			w.send(1)
			if n == 10 {
				close(begun)
			}
		}
	})
	<-begun
	file := filepath.Join(t.TempDir(), "backup.db")
	marks := w.back(file)
	stop()
	writing.Wait()

	require.Equal(t, []string{"backup.db"}, names(t, filepath.Dir(file)), "nothing else is left")
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	require.Len(t, marks, 1)
	recorded, err := w.BackupMark(t.Context(), 3)
	require.NoError(t, err)
	require.True(t, proto.Equal(marks[0].GetWatermark(), recorded))

	copied := openAt(t, file)
	watermark, err := copied.Watermark(t.Context(), 3)
	require.NoError(t, err)
	require.True(t, proto.Equal(watermark, marks[0].GetWatermark()))
	events := storetest.VerifyLog(t, copied, w.id)
	require.GreaterOrEqual(t, len(events), 11)
	require.Len(t, events, int(watermark.GetSequence()), "each event has one sequence")
}

func TestABackupThatIsNotMade(t *testing.T) {
	w := write(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "backup.db")
	w.back(file)
	_, err := sqlite.Backup(t.Context(), w.path, file)
	require.ErrorContains(t, err, "never replaces a file")
	other := filepath.Join(dir, "other.db")
	require.NoError(t, os.WriteFile(other, nil, 0o600))
	_, err = sqlite.Backup(t.Context(), other, filepath.Join(dir, "x"))
	require.ErrorIs(t, err, sqlite.ErrNotHistory)
	_, err = sqlite.Backup(t.Context(), filepath.Join(dir, "missing.db"), filepath.Join(dir, "x"))
	require.ErrorIs(t, err, os.ErrNotExist)
	ended, end := context.WithCancel(t.Context())
	end()
	_, err = sqlite.Backup(ended, w.path, filepath.Join(dir, "x"))
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, []string{"backup.db", "other.db"}, names(t, dir))
}

// The former database was not closed: its log must not be applied to the backup, and the former database keeps it.
func TestARestoreTakesThePlaceOfADatabaseWithItsLog(t *testing.T) {
	w := write(t)
	w.send(4)
	file := filepath.Join(t.TempDir(), "backup.db")
	w.back(file)
	w.send(5)
	dir := t.TempDir()
	path := filepath.Join(dir, "history.db")
	for _, suffix := range []string{"", "-wal"} { // as after the loss of power
		content, err := os.ReadFile(w.path + suffix)
		require.NoError(t, err)
		require.NotEmpty(t, content)
		require.NoError(t, os.WriteFile(path+suffix, content, 0o600))
	}
	for _, left := range []string{".restoring", ".restoring-wal"} { // of a restore that was interrupted
		require.NoError(t, os.WriteFile(path+left, []byte("left"), 0o600))
	}

	former, err := sqlite.Restore(t.Context(), file, path, func(ctx context.Context, staged string) error {
		s, err := sqlite.Open(ctx, sqlite.Config{Path: staged}, storetest.Partitions, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		_, err = s.RaiseEpochs(ctx)
		return errors.Join(err, s.Close())
	})
	require.NoError(t, err)
	base := filepath.Base(former)
	require.Equal(t, []string{"history.db", base, base + "-wal"}, names(t, dir))
	require.Len(t, storetest.VerifyLog(t, openAt(t, former), w.id), 10)
	restored := openAt(t, path)
	require.Len(t, storetest.VerifyLog(t, restored, w.id), 5)
	watermark, err := restored.Watermark(t.Context(), 3)
	require.NoError(t, err)
	require.Greater(t, watermark.GetEpoch(), w.worker.Watermark.GetEpoch(), "what prepare did is in it")
}

func TestARestoreThatFailsChangesNothing(t *testing.T) {
	w := write(t)
	dir := t.TempDir()
	file, path := filepath.Join(dir, "backup.db"), filepath.Join(dir, "history.db")
	w.back(file)
	require.NoError(t, os.WriteFile(path, []byte("as it was"), 0o600))
	away := errors.New("away")
	_, err := sqlite.Restore(t.Context(), file, path, func(context.Context, string) error { return away })
	require.ErrorIs(t, err, away)
	_, err = sqlite.Restore(t.Context(), path, path, nothing)
	require.ErrorIs(t, err, sqlite.ErrNotHistory)
	_, err = sqlite.Restore(t.Context(), filepath.Join(dir, "missing"), path, nothing)
	require.ErrorIs(t, err, os.ErrNotExist)
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "as it was", string(content))
	require.Equal(t, []string{"backup.db", "history.db"}, names(t, dir))

	// On another machine there is no former database.
	former, err := sqlite.Restore(t.Context(), file, filepath.Join(t.TempDir(), "history.db"), nothing)
	require.NoError(t, err)
	require.Empty(t, former)
}

// An operator restores as root, and the server runs as another user.
func TestARestoredDatabaseBelongsToTheOwnerOfItsDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	w := write(t)
	dir := t.TempDir()
	file, path := filepath.Join(t.TempDir(), "backup.db"), filepath.Join(dir, "history.db")
	w.back(file)
	require.NoError(t, os.Chown(dir, 65534, 65533))
	_, err := sqlite.Restore(t.Context(), file, path, nothing)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t)
	require.Equal(t, [2]uint32{65534, 65533}, [2]uint32{owner.Uid, owner.Gid})
}
