package ledger_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/ledger"
)

func entry(seq uint64) ledger.Entry {
	return ledger.NewEntry(&conversationv1.Event{ConversationId: "g1", Seq: seq, TimeMs: 7}, &historyv1.EraseEvents{
		Seqs: []uint64{1, 2}, Targeting: true, Kinds: []conversationv1.EventKind{2, 7}, Below: seq,
	}, map[uint64][]byte{1: {1, 2, 3, 4, 5, 6, 7, 8, 9}})
}

func read(t *testing.T, path string) (entries []ledger.Entry, damaged int) {
	t.Helper()
	entries, damaged, err := ledger.Read(path)
	require.NoError(t, err)
	return entries, damaged
}

func TestEntriesAreReadBackAsTheyWere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erased.jsonl")
	l := ledger.New(path)
	require.NoError(t, l.Record([]ledger.Entry{entry(3), entry(4)}))
	require.NoError(t, l.Close())
	require.NoError(t, l.Record([]ledger.Entry{entry(5)}), "a closed ledger opens again")
	require.NoError(t, l.Close())
	entries, damaged := read(t, path)
	require.Zero(t, damaged)
	require.Equal(t, []ledger.Entry{entry(3), entry(4), entry(5)}, entries)
	require.Equal(t, []string{"0102030405060708", ""}, entries[0].Hashes)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
}

func TestWithoutAPathNothingIsRecorded(t *testing.T) {
	l := ledger.New("")
	require.NoError(t, l.Record([]ledger.Entry{entry(3)}))
	require.NoError(t, l.Close())
}

func TestALineThatWasWrittenByHalfDoesNotSpoilTheNext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erased.jsonl")
	l := ledger.New(path)
	require.NoError(t, l.Record([]ledger.Entry{entry(3), entry(4)}))
	require.NoError(t, l.Close())
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, whole[:len(whole)-20], 0o600))
	l = ledger.New(path)
	require.NoError(t, l.Record([]ledger.Entry{entry(5)}))
	require.NoError(t, l.Close())
	entries, damaged := read(t, path)
	require.Equal(t, 1, damaged)
	require.Equal(t, []ledger.Entry{entry(3), entry(5)}, entries)
}

func TestADirectoryThatIsAwayIsAnError(t *testing.T) {
	require.Error(t, ledger.New(filepath.Join(t.TempDir(), "none", "erased.jsonl")).Record([]ledger.Entry{entry(3)}))
	_, _, err := ledger.Read(filepath.Join(t.TempDir(), "none"))
	require.Error(t, err)
}

func TestManyRecordAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "erased.jsonl")
	l := ledger.New(path)
	var running sync.WaitGroup
	for i := range uint64(20) {
		running.Go(func() { require.NoError(t, l.Record([]ledger.Entry{entry(i), entry(i)})) })
	}
	running.Wait()
	require.NoError(t, l.Close())
	entries, damaged := read(t, path)
	require.Zero(t, damaged)
	require.Len(t, entries, 40)
	for i := 0; i < len(entries); i += 2 {
		require.Equal(t, entries[i], entries[i+1], "entries of one call are adjacent")
	}
}

// database has events with these hashes and records what is erased.
type database struct {
	hashes map[uint64][]byte
	erased []*historyv1.EraseEvents
	err    error
}

func (d *database) Hashes(context.Context, ids.Conversation, []uint64) (map[uint64][]byte, error) {
	return d.hashes, d.err
}

func (d *database) EraseAgain(_ context.Context, _ ids.Conversation, erase *historyv1.EraseEvents) (int, error) {
	d.erased = append(d.erased, erase)
	return 1, d.err
}

func TestOnlyTheEventsThatWereErasedAreErasedAgain(t *testing.T) {
	first, other := []byte{1, 2, 3, 4, 5, 6, 7, 8, 99}, []byte{8, 7, 6, 5, 4, 3, 2, 1}
	for name, test := range map[string]struct {
		hashes map[uint64][]byte
		want   []uint64
	}{
		"there":              {map[uint64][]byte{1: first, 2: other}, []uint64{1}},
		"others took places": {map[uint64][]byte{1: other, 2: first}, nil},
		"not there":          {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := &database{hashes: test.hashes}
			erased, err := ledger.Apply(t.Context(), d, []ledger.Entry{entry(9)})
			require.NoError(t, err)
			if test.want == nil {
				require.Zero(t, erased)
				require.Empty(t, d.erased)
				return
			}
			require.Equal(t, 1, erased)
			want := &historyv1.EraseEvents{Seqs: test.want, Targeting: true, Kinds: []conversationv1.EventKind{2, 7}, Below: 9}
			require.True(t, proto.Equal(want, d.erased[0]), "%v", d.erased[0])
		})
	}
	d := &database{}
	bySender := ledger.NewEntry(&conversationv1.Event{ConversationId: "g1"}, &historyv1.EraseEvents{Sender: "bob", Below: 3}, nil)
	_, err := ledger.Apply(t.Context(), d, []ledger.Entry{bySender})
	require.NoError(t, err)
	require.Equal(t, "bob", d.erased[0].GetSender())
	d.err = errors.New("away")
	_, err = ledger.Apply(t.Context(), d, []ledger.Entry{entry(9)})
	require.ErrorIs(t, err, d.err)
	_, err = ledger.Apply(t.Context(), d, []ledger.Entry{bySender})
	require.ErrorIs(t, err, d.err)
}
