package cache

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/cursor"
)

// heap is the memory in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// BenchmarkMemoryOfConversations reports the bytes of a conversation with four members: loaded, and after a message that all members
// have acknowledged and whose cursors are stored.
func BenchmarkMemoryOfConversations(b *testing.B) {
	const conversations, members = 20_000, 4
	for b.Loop() {
		c := New(1 << 30)
		before := heap()
		list := make([]string, conversations)
		for i := range list {
			list[i] = fmt.Sprintf("g-%036d", i)
			loaded := &historyv1.ConversationState{
				ConversationId: list[i], Kind: conversationv1.Kind_KIND_GROUP, Name: fmt.Sprintf("group %d", i), Head: 1, HeadHash: make([]byte, 32),
			}
			for m := range members {
				loaded.Members = append(loaded.Members, &historyv1.Member{JoinedSeq: 1, Cursor: &conversationv1.Cursor{UserId: fmt.Sprintf("user-%d", i%500*members+m)}})
			}
			loaded.Creator = loaded.GetMembers()[0].GetCursor().GetUserId()
			c.AddLoaded(list[i:i+1], []*historyv1.ConversationState{loaded}, 0)
		}
		idle := heap() - before
		for i := range list {
			id := ids.Conversation(list[i])
			state := *c.State(id)
			state.Head, state.HeadHash = 2, make([]byte, 32)
			sender := string(state.Creator)
			c.ApplyCommitted(Change{
				States: map[ids.Conversation]*conversation.State{id: &state},
				Events: []*conversationv1.Event{{ConversationId: list[i], Seq: 2, Sender: sender, Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE}},
			}, 1)
			for user := range state.Members {
				c.Acknowledge([]*brokerv1.Ack{{ConversationId: list[i], UserId: string(user), DeliveredSeq: 2}}, 1)
			}
			c.Collect(cursor.NewMoves())
			c.Saved()
		}
		spoken := heap() - before
		b.ReportMetric(float64(idle)/conversations, "idle-B/conversation")
		b.ReportMetric(float64(spoken)/conversations, "spoken-B/conversation")
		runtime.KeepAlive(c)
		runtime.KeepAlive(list)
	}
}
