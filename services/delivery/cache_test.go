package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// The cache evicts what was not used lately, but no cursor that is not stored yet.
func TestCacheIsBounded(t *testing.T) {
	b := newBook(50)
	load := func(n int) string {
		id := command("", "ann", n, nil).GetConversationId()
		b.add([]string{id}, []*historyv1.ConversationState{{ConversationId: id, Head: 5, Members: []*historyv1.Member{
			{JoinedSeq: 1, Cursor: &conversationv1.Cursor{UserId: "ann"}},
		}}}, 0)
		b.trim()
		return id
	}
	kept := load(0)
	b.acknowledge([]*brokerv1.Ack{{ConversationId: kept, UserId: "ann", DeliveredSeq: 3}}, 1)
	for n := range 1000 {
		load(n + 1)
		require.LessOrEqual(t, len(b.young)+len(b.old), 60)
	}
	require.NotNil(t, b.state(kept))
	pending := newMoves()
	b.Collect(pending)
	require.EqualValues(t, 3, pending.cursors[cursorKey{conversation: kept, user: "ann"}].delivered)
	require.Len(t, pending.receipts, 1)
	for n := range 1000 {
		load(n + 2000)
	}
	require.NotNil(t, b.state(kept), "read again now, it would be behind what is being stored")
	b.Saved()
	for n := range 1000 {
		load(n + 4000)
	}
	require.Nil(t, b.state(kept))
}

// Acknowledgements that wait for their conversation are dropped above the bound.
func TestWaitingAcknowledgementsAreBounded(t *testing.T) {
	b := newBook(50)
	dropped := 0
	for n := range maxWanted + 100 {
		dropped += b.acknowledge([]*brokerv1.Ack{{ConversationId: command("", "ann", n, nil).GetConversationId(), UserId: "ann", DeliveredSeq: 1}}, 1)
	}
	require.Equal(t, 100, dropped)
	require.Len(t, b.wants(1000), 1000)
	b.add(b.wants(1000), nil, 0)
	require.Equal(t, maxWanted-1000, b.waiting)
}
