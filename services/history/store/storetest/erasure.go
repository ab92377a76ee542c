package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// erased returns the seqs of a verified log whose content is erased.
func erased(t *testing.T, s store.Store, id string) (seqs []uint64) {
	t.Helper()
	for _, event := range VerifyLog(t, s, id) {
		if len(event.GetBody()) == 0 {
			require.Empty(t, event.GetSalt())
			require.Len(t, event.GetCommitment(), 32)
			seqs = append(seqs, event.GetSeq())
		}
	}
	return seqs
}

func testErasure(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("a deleted message is erased with its edits and reactions, and replies stay", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "alice", Edit(2, "3")), worker.Command(id, "bob", Reply("4", 2)),
			worker.Command(id, "bob", React(2, "x", false)), worker.Command(id, "alice", Message("6")), worker.Command(id, "bob", React(6, "x", false)))
		worker.Commit(t, worker.Command(id, "alice", Delete(2)), worker.Command(id, "bob", Message("9")))
		require.Equal(t, []uint64{2, 3, 5}, erased(t, db, id))
		fact := facts(t, db, id, 2, "bob")
		require.True(t, fact.GetErased())
		require.Equal(t, uint64(8), fact.GetRow().GetDeletedSeq())
		require.Empty(t, fact.GetReactions())
		require.Len(t, facts(t, db, id, 6, "bob").GetReactions(), 1)
		require.Equal(t, 3, db.Count(t, "SELECT count(*) FROM events WHERE commitment IS NOT NULL"))
		require.Equal(t, 0, db.Count(t, "SELECT count(*) FROM events WHERE commitment IS NOT NULL AND (body IS NOT NULL OR salt IS NOT NULL)"))
		page := readMessages(t, db, &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "bob"})
		require.Equal(t, "2 4 6 9", messageSeqs(page))
	})

	t.Run("an event that is erased in the batch that it comes in", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "alice", Delete(2)))
		require.Equal(t, []uint64{2}, erased(t, db, id))
	})

	t.Run("later events of the batch stay", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "bob", Message("2")), worker.Command(id, string(conversation.ServerUser), Erase(&conversationv1.Erase{Sender: "bob"})),
			worker.Command(id, "bob", Message("4")))
		require.Equal(t, []uint64{2}, erased(t, db, id))
	})

	t.Run("by seqs, by sender and by age, below the event that asks for it", func(t *testing.T) {
		for name, test := range map[string]struct {
			erase func(events []*conversationv1.Event) *conversationv1.Erase
			want  []uint64
		}{
			"seqs": {func([]*conversationv1.Event) *conversationv1.Erase {
				return &conversationv1.Erase{Seqs: []uint64{2, 4, 6}}
			}, []uint64{2, 6}},
			"sender": {func([]*conversationv1.Event) *conversationv1.Erase { return &conversationv1.Erase{Sender: "bob"} }, []uint64{3, 5, 6}},
			"age": {func(events []*conversationv1.Event) *conversationv1.Erase {
				return &conversationv1.Erase{BeforeMs: events[2].GetTimeMs()}
			}, []uint64{1, 2, 3}},
		} {
			t.Run(name, func(t *testing.T) {
				db, worker, id := group(t, subject)
				var events []*conversationv1.Event
				for _, command := range []struct {
					sender string
					body   *conversationv1.Body
				}{
					{"alice", Message("2")}, {"bob", Message("3")}, {"alice", Add("carol")}, {"bob", React(2, "x", false)}, {"bob", Rename("by bob")},
				} {
					events = append(events, worker.Commit(t, worker.Command(id, command.sender, command.body))...)
				}
				worker.Commit(t, worker.Command(id, string(conversation.ServerUser), Erase(test.erase(events))))
				worker.Commit(t, worker.Command(id, "bob", Message("8")))
				require.Equal(t, test.want, erased(t, db, id))
				states, err := db.Conversations(t.Context(), []string{id})
				require.NoError(t, err)
				require.Equal(t, worker.States[id].Name, states[0].GetName())
				require.Equal(t, name == "age", states[0].GetName() != "", "the name was set by seq 6")
				require.Len(t, facts(t, db, id, 2, "bob").GetReactions(), map[string]int{"seqs": 1, "sender": 0, "age": 1}[name])
			})
		}
	})

	t.Run("an event that arrives without its content is stored without it", func(t *testing.T) {
		db, worker, id := group(t, subject)
		event := worker.Apply(t, worker.Command(id, "alice", Message("2")))[0]
		event.Body, event.Salt = nil, nil
		_, err := worker.Append(t.Context(), worker.Batch(event))
		require.NoError(t, err)
		require.Equal(t, []uint64{2}, erased(t, db, id))
	})

	t.Run("erasing again finds nothing to do", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "bob", React(2, "x", false)))
		erase := &historyv1.EraseEvents{Seqs: []uint64{2}, Targeting: true, Below: 99, Kinds: []conversationv1.EventKind{
			conversationv1.EventKind_EVENT_KIND_MESSAGE, conversationv1.EventKind_EVENT_KIND_REACTED,
		}}
		for _, want := range []int{2, 0} {
			n, err := db.EraseAgain(t.Context(), ids.Conversation(id), erase)
			require.NoError(t, err)
			require.Equal(t, want, n)
			require.Equal(t, []uint64{2, 3}, erased(t, db, id))
			require.Empty(t, facts(t, db, id, 2, "bob").GetReactions())
		}
		_, err := db.EraseAgain(t.Context(), ids.Conversation(id), &historyv1.EraseEvents{Below: 99, Kinds: erase.GetKinds()})
		var invalid *store.InvalidError
		require.ErrorAs(t, err, &invalid)
		hashes, err := db.Hashes(t.Context(), ids.Conversation(id), []uint64{2, 99})
		require.NoError(t, err)
		require.Equal(t, map[uint64][]byte{2: ReadAll(t, db, id)[1].GetHash()}, hashes)
	})
}
