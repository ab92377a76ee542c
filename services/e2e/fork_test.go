package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/listen/reserve"
	"github.com/runnelhq/runnel/services/standalone"
)

// restorable is a standalone Runnel at a fixed address, whose data directory can be restored.
type restorable struct {
	*suite

	cfg    standalone.Config
	backup string
}

func newRestorable(t *testing.T) *restorable {
	t.Helper()
	address, err := reserve.Address()
	require.NoError(t, err)
	cfg := defaults(t)
	cfg.Gateway.Drain = 100 * time.Millisecond // no client connects elsewhere
	cfg.DataDir, cfg.Gateway.Listen = filepath.Join(t.TempDir(), "data"), address
	r := &restorable{cfg: cfg, backup: filepath.Join(t.TempDir(), "backup")}
	r.suite = run(t, cfg)
	return r
}

// keep makes a backup; no commands are sent meanwhile.
func (r *restorable) keep() {
	r.t.Helper()
	r.stop()
	require.NoError(r.t, os.CopyFS(r.backup, os.DirFS(r.cfg.DataDir)))
	r.suite = run(r.t, r.cfg)
}

// restore restores the backup: completely, or only the files whose names begin with a prefix.
func (r *restorable) restore(prefix string) {
	r.t.Helper()
	r.stop()
	r.put(prefix)
	r.suite = run(r.t, r.cfg)
}

func (r *restorable) put(prefix string) {
	r.t.Helper()
	if prefix == "" {
		require.NoError(r.t, os.RemoveAll(r.cfg.DataDir))
		require.NoError(r.t, os.CopyFS(r.cfg.DataDir, os.DirFS(r.backup)))
		return
	}
	for _, dir := range []string{r.cfg.DataDir, r.backup} {
		entries, err := os.ReadDir(dir)
		require.NoError(r.t, err)
		for _, entry := range entries {
			switch name := entry.Name(); {
			case !strings.HasPrefix(name, prefix):
			case dir == r.cfg.DataDir:
				require.NoError(r.t, os.Remove(filepath.Join(dir, name)))
			default:
				data, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(r.t, err)
				require.NoError(r.t, os.WriteFile(filepath.Join(r.cfg.DataDir, name), data, 0o600))
			}
		}
	}
}

// leave closes a connection before its server stops, because the server would wait for a client that does not read.
func (r *raw) leave() {
	r.t.Helper()
	require.NoError(r.t, r.ws.Close())
}

// prepare has bob make a group with ann, and both write. Seq 7 is the last one in the backup; 11 is the newest, and bob's.
func (r *restorable) prepare(bob *program) (id string) {
	r.t.Helper()
	ctx, cancel := bob.patient()
	defer cancel()
	id, err := bob.CreateGroup(ctx, "group", "ann")
	require.NoError(r.t, err)
	ann := r.login("ann", frame.JSON)
	for range 5 {
		ann.ask(submit(id, text("kept")))
	}
	require.EqualValues(r.t, 7, bob.done(id, text("kept, of bob")))
	ann.leave()
	r.keep()
	ann = r.login("ann", frame.JSON)
	for range 3 {
		ann.ask(submit(id, text("undone")))
	}
	require.EqualValues(r.t, 11, bob.done(id, text("undone, of bob")))
	require.Len(r.t, bob.upTo(11), 11)
	ann.leave()
	return id
}

// A client that is connected while the whole installation is restored drops the undone events, notifies the program, sends
// its own commands again, and receives the events after that.
func TestAClientIsToldThatTheLogWentBack(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			r := newRestorable(t)
			bob := open(t, r.url(), "bob", codec, nil)
			id := r.prepare(bob)
			r.restore("")
			ctx, cancel := bob.patient()
			defer cancel()
			var fork client.Fork
			select {
			case fork = <-bob.forks:
			case <-ctx.Done():
				require.NoError(t, ctx.Err(), "bob was not told")
			}
			require.Equal(t, id, fork.ConversationID)
			require.EqualValues(t, 11, fork.From)
			require.EqualValues(t, 7, fork.To)
			require.Len(t, fork.Commands, 1)
			outcome, err := fork.Commands[0].Wait(ctx)
			require.NoError(t, err)
			require.EqualValues(t, 8, outcome.GetSeq())

			ann := r.login("ann", frame.JSON)
			require.EqualValues(t, 9, ann.ask(submit(id, text("after"))).GetOutcome().GetSeq())
			events := bob.upTo(9)
			require.EqualValues(t, 8, events[0].GetSeq())
			require.Equal(t, "undone, of bob", events[0].GetBody().GetMessage().GetText())
			require.Equal(t, "after", events[1].GetBody().GetMessage().GetText())
			require.EqualValues(t, 10, bob.done(id, text("and on")))
			require.Empty(t, bob.forks, "told once")
			log, err := bob.ReadAfter(ctx, id, 0, 100)
			require.NoError(t, err)
			require.Len(t, log.Events, 10)
		})
	}
}

// A program that was not running meanwhile finds another branch that is longer than its own.
func TestAClientThatComesBackFindsAnotherBranch(t *testing.T) {
	r := newRestorable(t)
	bob := open(t, r.url(), "bob", frame.Proto, nil)
	id := r.prepare(bob)
	require.NoError(t, bob.Close())
	r.restore("")
	ann := r.login("ann", frame.JSON)
	for seq := uint64(8); seq <= 14; seq++ {
		require.Equal(t, seq, ann.ask(submit(id, text("the other branch"))).GetOutcome().GetSeq())
	}
	again := open(t, r.url(), "bob", frame.Proto, bob.kept)
	events := again.upTo(14)
	fork := <-again.forks
	require.Equal(t, id, fork.ConversationID)
	require.LessOrEqual(t, fork.To, uint64(7), "nothing above is in common")
	require.Equal(t, fork.To+1, max(events[0].GetSeq(), 1))
	require.EqualValues(t, 15, again.done(id, text("here I am")))
	require.EqualValues(t, 15, again.next().GetSeq())
}

// If the database is older than its streams, nothing is lost, and nothing happens twice.
func TestAnOlderDatabaseCatchesUpFromTheStreams(t *testing.T) {
	r := newRestorable(t)
	bob := open(t, r.url(), "bob", frame.Proto, nil)
	id := r.prepare(bob)
	r.restore("history.db")
	ctx, cancel := bob.patient()
	defer cancel()
	ann := r.login("ann", frame.JSON)
	require.EqualValues(t, 12, ann.ask(submit(id, text("after"))).GetOutcome().GetSeq())
	require.EqualValues(t, 13, bob.done(id, text("and on")))
	// While the database catches up bob may receive a fork; then the same events come again.
	for seen := uint64(0); seen != 13; {
		seen = bob.next().GetSeq()
	}
	log, err := bob.ReadAfter(ctx, id, 0, 100)
	require.NoError(t, err)
	require.Len(t, log.Events, 13)
	require.Equal(t, "undone, of bob", log.Events[10].GetBody().GetMessage().GetText())
}
