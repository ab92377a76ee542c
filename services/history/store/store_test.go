package store_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/chain"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func TestMergedCursorsAreTheFurthestOfEach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		updates := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *historyv1.CursorUpdate {
			seq := rapid.Uint64Range(0, 4)
			return &historyv1.CursorUpdate{
				ConversationId: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "conversation"),
				Cursor: &conversationv1.Cursor{
					UserId:       rapid.SampledFrom([]string{"a", "b"}).Draw(t, "user"),
					DeliveredSeq: seq.Draw(t, "delivered"), ReadSeq: seq.Draw(t, "read"),
				},
			}
		}), 0, 12).Draw(t, "updates")
		type key struct{ conversation, user string }
		want := map[key][2]uint64{}
		for _, update := range updates {
			c := update.GetCursor()
			if c.GetDeliveredSeq() > 0 || c.GetReadSeq() > 0 {
				k := key{update.GetConversationId(), c.GetUserId()}
				want[k] = [2]uint64{max(want[k][0], c.GetDeliveredSeq()), max(want[k][1], c.GetReadSeq())}
			}
		}
		got := map[key][2]uint64{}
		merged := store.MergeCursors(updates)
		for _, update := range merged {
			got[key{update.GetConversationId(), update.GetCursor().GetUserId()}] = [2]uint64{update.GetCursor().GetDeliveredSeq(), update.GetCursor().GetReadSeq()}
		}
		require.Equal(t, want, got)
		require.Len(t, merged, len(want))
	})
}

func TestMergingLeavesTheUpdatesAlone(t *testing.T) {
	one := &historyv1.CursorUpdate{ConversationId: "x", Cursor: &conversationv1.Cursor{UserId: "a", DeliveredSeq: 1}}
	two := &historyv1.CursorUpdate{ConversationId: "x", Cursor: &conversationv1.Cursor{UserId: "a", ReadSeq: 2}}
	updates := []*historyv1.CursorUpdate{two, one}
	require.Len(t, store.MergeCursors(updates), 1)
	require.Equal(t, []*historyv1.CursorUpdate{two, one}, updates)
	require.Zero(t, one.GetCursor().GetReadSeq())
}

func TestCommandIDsKeepTheirForm(t *testing.T) {
	for range 100 {
		id := uuid.Must(uuid.NewV7())
		decoded, ok := store.DecodeCommandID(id.String())
		require.True(t, ok)
		require.Equal(t, [16]byte(id), decoded)
		require.Equal(t, id.String(), store.EncodeCommandID(decoded[:]))
	}
	for _, bad := range []string{"", "x", "0192f3c0-0000-7000-8000-00000000000", "0192f3c0-0000-7000-8000-00000000000g"} {
		_, ok := store.DecodeCommandID(bad)
		require.False(t, ok)
	}
	require.Equal(t, "ff", store.EncodeCommandID([]byte{0xff}), "a damaged id is not an id")
}

func TestACommitmentIsComputedOnlyWhereItFollows(t *testing.T) {
	event := &conversationv1.Event{Body: []byte{1}, Salt: make([]byte, 16)}
	store.Complete(event)
	want := chain.Commitment(event.GetSalt(), event.GetBody())
	require.Equal(t, want[:], event.GetCommitment())
	lost := &conversationv1.Event{}
	store.Complete(lost)
	require.Nil(t, lost.GetCommitment(), "it does not pass as erased")
	erased := &conversationv1.Event{Commitment: []byte{1}}
	store.Complete(erased)
	require.Equal(t, []byte{1}, erased.GetCommitment())
}
