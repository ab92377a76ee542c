package torture

import (
	"context"
	"database/sql"
	"encoding/hex"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"
	"github.com/runnelhq/runnel/services/history"
)

func onBoth(t *testing.T, test func(t *testing.T, location string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "history.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, postgrestest.Start(t)) })
}

// stored puts the good history into a database that the history service made.
func stored(t *testing.T, location string) (*Database, History, Content, string) {
	t.Helper()
	h, c, id := good(t)
	request := keeping(t, c, id)
	store, err := history.Open(t.Context(), history.Config{Database: location, Connections: 2}, 1, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = store.Append(t.Context(), request)
	require.NoError(t, err)
	require.NoError(t, store.Close())
	d := OpenDatabase(location)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d, h, c, id
}

func change(t *testing.T, d *Database, statement string) {
	t.Helper()
	db, err := sql.Open(d.driver, strings.TrimSuffix(d.source, "&_pragma=query_only(1)"))
	require.NoError(t, err)
	defer db.Close()
	_, err = db.ExecContext(t.Context(), statement)
	require.NoError(t, err)
}

func TestTheDatabaseIsReadAsItWasWritten(t *testing.T) {
	onBoth(t, func(t *testing.T, location string) {
		t.Helper()
		d, h, want, id := stored(t, location)
		require.NoError(t, d.WatchWatermarks(t.Context()))
		content, err := d.Content(t.Context())
		require.NoError(t, err)
		h.Fed = map[uint32][]Fed{0: nil}
		for _, place := range content.Places {
			require.NotZero(t, place.Position.Epoch)
			h.Fed[0] = append(h.Fed[0], Fed{place.Position, id, place.Seq, hex.EncodeToString(want.Logs[id][place.Seq-1].GetHash())})
		}
		require.Empty(t, Check(h, content))
		require.Len(t, content.Logs[id], len(want.Logs[id]))
		heads, members, err := d.Heads(t.Context())
		require.NoError(t, err)
		require.Equal(t, map[string]uint64{id: 7}, heads)
		require.Equal(t, map[string]map[string]uint64{id: {"ann": 0, "bob": 0, "cem": 0}}, members)
		require.NoError(t, d.Close(), "and it can be opened again")
		_, err = d.Content(t.Context())
		require.NoError(t, err)
	})
}

func TestASnapshotIsOneConversation(t *testing.T) {
	onBoth(t, func(t *testing.T, location string) {
		t.Helper()
		d, _, want, id := stored(t, location)
		content, err := d.Snapshot(t.Context(), id)
		require.NoError(t, err)
		require.Len(t, content.Logs[id], len(want.Logs[id]))
		require.Empty(t, CheckSnapshot(content))
		content, err = d.Snapshot(t.Context(), "another")
		require.NoError(t, err)
		require.Empty(t, content.Logs)
		change(t, d, "INSERT INTO message_views VALUES ('"+id+"', 2, 3, 0, 0, 0, 0)")
		content, err = d.Snapshot(t.Context(), id)
		require.NoError(t, err)
		require.Equal(t, "I11", CheckSnapshot(content)[0].Invariant)
	})
}

func TestMembershipsHaveThePositionsOfTheirEvents(t *testing.T) {
	onBoth(t, func(t *testing.T, location string) {
		t.Helper()
		d, _, _, id := stored(t, location)
		for _, statement := range []string{
			"UPDATE memberships SET joined_sequence = joined_sequence + 1 WHERE user_id = 'ann'",
			"UPDATE memberships SET left_epoch = left_epoch + 1 WHERE left_seq IS NOT NULL",
		} {
			before, err := d.Snapshot(t.Context(), id)
			require.NoError(t, err)
			change(t, d, statement)
			after, err := d.Snapshot(t.Context(), id)
			require.NoError(t, err)
			require.NotEqual(t, before.Stays, after.Stays, "it changes a row")
			require.Equal(t, "I11", CheckStays(History{}, after)[0].Invariant)
		}
	})
}

func TestWatermarksThatGoBackAreNoted(t *testing.T) {
	onBoth(t, func(t *testing.T, location string) {
		t.Helper()
		d, _, _, _ := stored(t, location)
		require.NoError(t, d.WatchWatermarks(t.Context()))
		change(t, d, "UPDATE partitions SET epoch = 9000000000007, sequence = 9 WHERE partition = 0")
		change(t, d, "UPDATE partitions SET stream = '2', epoch = 9000000000008, sequence = 3 WHERE partition = 0")
		regressions, err := d.Regressions(t.Context())
		require.NoError(t, err)
		require.Empty(t, regressions, "forward, or into a higher epoch")
		change(t, d, "UPDATE partitions SET sequence = 2 WHERE partition = 0")
		change(t, d, "UPDATE partitions SET epoch = 9000000000007, sequence = 100 WHERE partition = 0")
		regressions, err = d.Regressions(t.Context())
		require.NoError(t, err)
		require.Equal(t, []string{"the watermark of partition 0 went back from (9000000000008, 2) to (9000000000007, 100)", "the watermark of partition 0 went back from (9000000000008, 3) to (9000000000008, 2)"}, regressions)
	})
}

func TestTheWitnessFindsWhatIsCommittedAndNothingElse(t *testing.T) {
	onBoth(t, func(t *testing.T, location string) {
		t.Helper()
		d, _, c, id := stored(t, location)
		event := c.Logs[id][1]
		seen := Sighting{Conversation: id, Seq: 2, Hash: hex.EncodeToString(event.GetHash()), Who: "ann/phone"}
		outcome := Sighting{Conversation: id, Seq: 2, Sender: "ann", Command: event.GetCommandId(), Who: "ann/phone"}
		future, forged, other := seen, seen, outcome
		future.Seq, forged.Hash, other.Command = 8, "00", c.Logs[id][2].GetCommandId()
		for _, test := range []struct {
			sighting Sighting
			problem  string
		}{
			{seen, ""},
			{outcome, ""},
			{future, "is not in the database"},
			{forged, "is another event in the database"},
			{other, "is of another command in the database"},
		} {
			record := NewRecord()
			w := NewWitness(d, record)
			w.Saw(t.Context(), test.sighting)
			w.Finish()
			w.Run(context.Background())
			if test.problem == "" {
				require.Empty(t, record.Violations())
			} else {
				require.Len(t, record.Violations(), 1)
				require.Contains(t, record.Violations()[0].What, test.problem)
			}
			looks, _ := w.Looks()
			require.Equal(t, 1, looks)
		}
	})
}
