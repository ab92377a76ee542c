package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func readMessages(t *testing.T, s store.Store, request *historyv1.ReadMessagesRequest) *historyv1.ReadMessagesResponse {
	t.Helper()
	request.Kinds = conversation.MessageKinds()
	page, err := s.ReadMessages(t.Context(), request)
	require.NoError(t, err)
	return page
}

func messageSeqs(page *historyv1.ReadMessagesResponse) string {
	var b strings.Builder
	for _, message := range page.GetMessages() {
		fmt.Fprintf(&b, "%d ", message.GetEvent().GetSeq())
	}
	if page.GetMore() {
		b.WriteString("more")
	}
	return strings.TrimSpace(b.String())
}

func testMessages(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("current messages", func(t *testing.T) {
		db, worker, id := group(t, subject)
		sent := worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "bob", Message("3")))
		edit := worker.Commit(t, worker.Command(id, "alice", Edit(2, "edited")))[0]
		var reactions []*brokerv1.Command
		for _, emoji := range []string{"z", "b", "a"} {
			reactions = append(reactions, worker.Command(id, "alice", React(2, emoji, false)))
		}
		worker.Commit(t, append(reactions, worker.Command(id, "bob", React(2, "z", false)))...)
		page := readMessages(t, db, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "bob"})
		require.Equal(t, "2 3", messageSeqs(page))
		require.Equal(t, uint64(8), page.GetHead())
		requireProto(t, &historyv1.StoredMessage{
			Event: sent[0], Edit: edit, Row: &historyv1.MessageRow{Seq: 2, EditSeq: 4, EditTimeMs: edit.GetTimeMs()},
			Reactions: []*historyv1.ReactionCount{{Emoji: "z", Count: 2, Mine: true}, {Emoji: "a", Count: 1}, {Emoji: "b", Count: 1}},
		}, page.GetMessages()[0])
		requireProto(t, &historyv1.StoredMessage{Event: sent[1]}, page.GetMessages()[1])
	})

	t.Run("page by page in both directions", func(t *testing.T) {
		db, worker, id := group(t, subject)
		for range 5 {
			worker.Commit(t, worker.Command(id, "alice", Message("m")), worker.Command(id, "alice", Rename("n")))
		}
		for want, request := range map[string]*historyv1.ReadMessagesRequest{
			"2 4 more":   {Limit: 2},
			"6 8 more":   {After: 5, Limit: 2},
			"8 10":       {After: 6, Limit: 2},
			"10 8 more":  {Backward: true, Limit: 2},
			"6 4 2":      {Backward: true, Before: 8, Limit: 3},
			"2 4 6 8 10": {},
			"":           {After: 10},
		} {
			request.ConversationId, request.Viewer = id, "bob"
			require.Equal(t, want, messageSeqs(readMessages(t, db, request)))
		}
	})

	t.Run("only current members, and only what they may see", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "alice", Add("carol")), worker.Command(id, "alice", Message("4")),
			worker.Command(id, "carol", Leave()), worker.Command(id, "alice", Message("6")))
		request := &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "carol", Kinds: conversation.MessageKinds()}
		for _, viewer := range []string{"carol", "stranger"} {
			request.Viewer = viewer
			_, err := db.ReadMessages(t.Context(), request)
			require.ErrorIs(t, err, store.ErrNotFound)
		}
		worker.Commit(t, worker.Command(id, "alice", Add("carol")), worker.Command(id, "alice", Message("8")))
		request.Viewer = "carol"
		require.Equal(t, "4 8", messageSeqs(readMessages(t, db, request)))
	})

	t.Run("a page ends at about a mebibyte, edits counted", func(t *testing.T) {
		db, worker, id := group(t, subject)
		var commands []*brokerv1.Command
		for i := range 150 {
			commands = append(commands, worker.Command(id, "alice", Message(strings.Repeat("x", 8000))), worker.Command(id, "alice", Edit(uint64(2+2*i), strings.Repeat("y", 8000))))
		}
		worker.Commit(t, commands...)
		page := readMessages(t, db, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "bob", Limit: protocol.MaxMessagesPage})
		require.True(t, page.GetMore())
		require.InDelta(t, store.MaxPageBytes/16_300, len(page.GetMessages()), 5)
	})

	t.Run("at most 50 reactions, the most frequent ones", func(t *testing.T) {
		db := subject.New(t)
		worker := NewWorker(db, 3, &Clock{})
		var users []string
		for i := range 6 {
			users = append(users, fmt.Sprintf("u%d", i))
		}
		id := worker.Commit(t, worker.CreateGroup("alice", "g", users...))[0].GetConversationId()
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		for i, user := range users {
			var commands []*brokerv1.Command
			for n := range 11 {
				commands = append(commands, worker.Command(id, user, React(2, fmt.Sprintf("e%02d", i*10+n), false)))
			}
			worker.Commit(t, commands...)
		}
		counts := readMessages(t, db, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "alice"}).GetMessages()[0].GetReactions()
		require.Len(t, counts, 50)
		require.Equal(t, "e10", counts[0].GetEmoji())
		require.Equal(t, uint32(2), counts[0].GetCount())
		require.True(t, slices.IsSortedFunc(counts, func(a, b *historyv1.ReactionCount) int { return int(b.GetCount()) - int(a.GetCount()) }))
	})
}
