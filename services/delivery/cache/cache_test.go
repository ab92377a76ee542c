package cache

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// The cache evicts entries that were not used recently, but never a cursor that is not stored yet.
func TestCacheIsBounded(t *testing.T) {
	b := New(50)
	load := func(n int) string {
		id := deliverytest.Command("", "ann", n, nil).GetConversationId()
		b.AddLoaded([]string{id}, []*historyv1.ConversationState{{ConversationId: id, Head: 5, Members: []*historyv1.Member{
			{JoinedSeq: 1, Cursor: &conversationv1.Cursor{UserId: "ann"}},
		}}}, 0)
		b.Trim()
		return id
	}
	kept := ids.Conversation(load(0))
	b.Acknowledge([]*brokerv1.Ack{{ConversationId: string(kept), UserId: "ann", DeliveredSeq: 3}}, 1)
	for n := range 1000 {
		load(n + 1)
		require.LessOrEqual(t, len(b.young)+len(b.old), 60)
	}
	require.NotNil(t, b.State(kept))
	pending := cursor.NewMoves()
	b.Collect(pending)
	require.EqualValues(t, 3, pending.Cursors[cursor.Key{Conversation: kept, User: "ann"}].Delivered)
	require.Len(t, pending.Receipts, 1)
	for n := range 1000 {
		load(n + 2000)
	}
	require.NotNil(t, b.State(kept), "if it were loaded again now, it would be behind the cursor that is being stored")
	b.Saved()
	for n := range 1000 {
		load(n + 4000)
	}
	require.Nil(t, b.State(kept))
}

// Acknowledgements that wait for their conversation are dropped above the limit.
func TestWaitingAcknowledgementsAreBounded(t *testing.T) {
	b := New(50)
	dropped := 0
	for n := range maxWanted + 100 {
		dropped += b.Acknowledge([]*brokerv1.Ack{{ConversationId: deliverytest.Command("", "ann", n, nil).GetConversationId(), UserId: "ann", DeliveredSeq: 1}}, 1)
	}
	require.Equal(t, 100, dropped)
	require.Len(t, b.Wanted(1000), 1000)
	b.AddLoaded(b.Wanted(1000), nil, 0)
	require.Equal(t, maxWanted-1000, b.waiting)
}

// Users who were removed are part of the state that is loaded, and count towards the capacity.
func TestRemovedUsersAreLoaded(t *testing.T) {
	b := New(50)
	id := deliverytest.Command("", "ann", 1, nil).GetConversationId()
	b.AddLoaded([]string{id}, []*historyv1.ConversationState{{
		ConversationId: id, Head: 5, Removed: []*historyv1.Removal{{UserId: "eve", Seq: 4}, {UserId: "mallory", Seq: 5}},
	}}, 0)
	require.Equal(t, map[ids.User]ids.Seq{"eve": 4, "mallory": 5}, b.State(ids.Conversation(id)).Removed)
	require.Equal(t, 3, b.Weight())
	after := *b.State(ids.Conversation(id))
	after.Removed = nil
	b.ApplyCommitted(Change{States: map[ids.Conversation]*conversation.State{ids.Conversation(id): &after}}, 0)
	require.Equal(t, 1, b.Weight())
}
