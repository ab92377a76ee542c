package deliverytest

import (
	"maps"
	"slices"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// Put appends one event to partition 0.
func (f *History) Put(t rapid.TB, sequence uint64, result conversation.Result) {
	mark := f.Watermarks[0]
	answer, err := f.Commit(&historyv1.AppendRequest{
		Expected: mark, Next: &historyv1.Watermark{Stream: "1", Sequence: sequence, TimeNs: result.Event.GetTimeMs() * 1e6}, BeginEpoch: mark == nil,
		Events: []*conversationv1.Event{result.Event}, Sequences: []uint64{sequence}, Effects: result.Effects,
	})
	require.NoError(t, err)
	require.Empty(t, answer.GetDuplicates())
}

// Same checks that two stores have the same logs and views.
func (f *History) Same(t rapid.TB, other *History) {
	require.Len(t, other.Logs, len(f.Logs))
	require.Len(t, other.Keys, len(f.Keys))
	for id, log := range f.Logs { // I1, I3, I4
		require.Len(t, other.Logs[id], len(log))
		for i, event := range log {
			require.True(t, proto.Equal(event, other.Logs[id][i]), "seq %d: want %v, got %v", i+1, event, other.Logs[id][i])
		}
	}
	for id, view := range f.Views { // I11
		require.Len(t, other.Views[id].Rows, len(view.Rows))
		for seq, row := range view.Rows {
			require.True(t, proto.Equal(row, other.Views[id].Rows[seq]), "want %v, got %v", row, other.Views[id].Rows[seq])
		}
		for seq, reactions := range view.Reactions {
			require.Len(t, other.Views[id].Reactions[seq], len(reactions))
			for i, reaction := range reactions {
				require.True(t, proto.Equal(reaction, other.Views[id].Reactions[seq][i]))
			}
		}
	}
}

// Clone returns a copy of the store, for a backup. Values that are never changed are shared.
func (f *History) Clone() *History {
	c := NewHistory(f.partitions)
	for id, log := range f.Logs {
		c.Logs[id] = slices.Clone(log)
	}
	maps.Copy(c.Watermarks, f.Watermarks)
	maps.Copy(c.States, f.States)
	maps.Copy(c.Keys, f.Keys)
	maps.Copy(c.Refusals, f.Refusals)
	c.clock = f.clock + 1000 // time passes while a database is restored
	return c
}
