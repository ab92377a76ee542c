package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// facts returns the facts about one message, with a user's reactions.
func facts(t *testing.T, s store.Store, id string, seq uint64, user string) *historyv1.Fact {
	t.Helper()
	found, err := s.Facts(t.Context(), []*historyv1.Need{{ConversationId: id, Seq: seq, UserId: user}})
	require.NoError(t, err)
	if len(found) == 0 {
		return nil
	}
	require.Len(t, found, 1)
	return found[0]
}

func requireProto(t *testing.T, want, got proto.Message) {
	t.Helper()
	require.True(t, proto.Equal(want, got), "it is %v, not %v", got, want)
}

func testEffects(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("facts describe the messages that commands refer to", func(t *testing.T) {
		db, worker, id := group(t, subject)
		events := worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "bob", Message("3")))
		require.Nil(t, facts(t, db, id, 2, "").GetRow(), "a message has no row until something refers to it")
		worker.Commit(t, worker.Command(id, "bob", Reply("4", 2)), worker.Command(id, "alice", Edit(2, "edited")), worker.Command(id, "alice", Reply("6", 2)))
		edited := worker.Commit(t, worker.Command(id, "alice", Edit(2, "edited again")))[0]
		worker.Commit(t, worker.Command(id, "bob", React(2, "👍", false)), worker.Command(id, "bob", React(2, "a", false)),
			worker.Command(id, "alice", React(2, "👍", false)))

		found, err := db.Facts(t.Context(), []*historyv1.Need{
			{ConversationId: id, Seq: 99},
			{ConversationId: id, Seq: 2, UserId: "bob"},
			{ConversationId: "g00000000000000000000000000", Seq: 2},
			{ConversationId: id, Seq: 3},
			{ConversationId: id, Seq: 2, UserId: "carol"},
		})
		require.NoError(t, err)
		require.Len(t, found, 3)
		row := &historyv1.MessageRow{Seq: 2, EditSeq: 7, EditTimeMs: edited.GetTimeMs(), Replies: 2, LastReplySeq: 6}
		message := func(need uint32, event *conversationv1.Event) *historyv1.Fact {
			return &historyv1.Fact{Need: need, Kind: conversationv1.EventKind_EVENT_KIND_MESSAGE, Sender: event.GetSender(), TimeMs: event.GetTimeMs()}
		}
		want := message(1, events[0])
		want.Row, want.Reactions = row, []*historyv1.Reaction{{Target: 2, UserId: "bob", Emoji: "👍", Seq: 8}, {Target: 2, UserId: "bob", Emoji: "a", Seq: 9}}
		requireProto(t, want, found[0])
		requireProto(t, message(3, events[1]), found[1])
		want = message(4, events[0])
		want.Row = row
		requireProto(t, want, found[2])

		none, err := db.Facts(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, none)
	})

	t.Run("a reaction is removed, and may be added again", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		worker.Commit(t, worker.Command(id, "bob", React(2, "x", false)), worker.Command(id, "alice", React(2, "x", false)))
		worker.Commit(t, worker.Command(id, "bob", React(2, "x", true)))
		require.Empty(t, facts(t, db, id, 2, "bob").GetReactions())
		require.Len(t, facts(t, db, id, 2, "alice").GetReactions(), 1)
		// Added, removed and added again in one batch.
		worker.Commit(t, worker.Command(id, "bob", React(2, "x", false)), worker.Command(id, "bob", React(2, "x", true)), worker.Command(id, "bob", React(2, "x", false)))
		require.Equal(t, uint64(8), facts(t, db, id, 2, "bob").GetReactions()[0].GetSeq())
	})

	t.Run("effects are committed with their events or not at all", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		zombie := worker.Fork()
		worker.Commit(t, worker.Command(id, "alice", Message("3")))
		_, err := db.Append(t.Context(), zombie.Batch(zombie.Apply(t, zombie.Command(id, "alice", Edit(2, "lost")))...))
		var moved *store.WatermarkError
		require.ErrorAs(t, err, &moved)
		require.Nil(t, facts(t, db, id, 2, "").GetRow())

		// The last effect of a batch fails: the effects before it are undone.
		batch := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Edit(2, "lost")))...)
		batch.Effects = append(batch.Effects, &historyv1.Effect{Effect: &historyv1.Effect_EndMembership{EndMembership: &historyv1.EndMembership{UserId: "stranger"}}})
		_, err = db.Append(t.Context(), batch)
		var invalid *store.InvalidError
		require.ErrorAs(t, err, &invalid)
		require.Nil(t, facts(t, db, id, 2, "").GetRow())
		requireWatermark(t, db, 3, worker.Watermark)
	})

	t.Run("an append whose effects cannot be written is not committed", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		batch := worker.Batch(worker.Apply(t, worker.Command(id, "bob", React(2, "x", false)))...)
		db.Exec(t, "DROP TABLE reactions")
		_, err := db.Append(t.Context(), batch)
		require.ErrorIs(t, err, store.ErrUnavailable)
		require.Len(t, VerifyLog(t, db, id), 2)
		requireWatermark(t, db, 3, worker.Watermark)
	})

	t.Run("an event changes other rows only by its effects", func(t *testing.T) {
		db, worker, id := group(t, subject)
		batch := worker.Batch(worker.Apply(t, worker.Command(id, "alice", Add("carol")), worker.Command(id, "alice", Rename("other")))...)
		batch.Effects = nil
		_, err := worker.Append(t.Context(), batch)
		require.NoError(t, err)
		states, err := db.Conversations(t.Context(), []string{id})
		require.NoError(t, err)
		require.Len(t, states[0].GetMembers(), 2)
		require.Equal(t, "our group", states[0].GetName())

		// A body of a kind that no build knows yet.
		event := worker.Apply(t, worker.Command(id, "alice", Message("m")))[0]
		event.Body, event.Kind = []byte{0xba, 0x3e, 0x00}, 999
		event.Format = 2
		unknown := worker.Batch(event)
		_, err = worker.Append(t.Context(), unknown)
		require.NoError(t, err)
		stored := ReadAll(t, db, id)
		require.Equal(t, event.GetBody(), stored[len(stored)-1].GetBody())
		require.Equal(t, event.GetKind(), stored[len(stored)-1].GetKind())
	})

	t.Run("an event of a later format is stored unchanged", func(t *testing.T) {
		db, worker, id := group(t, subject)
		event := worker.Apply(t, worker.Command(id, "alice", Message("m")))[0]
		event.Format, event.Commitment = 3, make([]byte, 32)
		event.HeaderExtra = []byte{0x0a, 0x01, 0x02, 0xfa, 0x3e, 0x01, 0x00}
		_, err := worker.Append(t.Context(), worker.Batch(event))
		require.NoError(t, err)
		requireEvents(t, []*conversationv1.Event{event}, ReadAll(t, db, id)[1:])
		require.Equal(t, 2, db.Count(t, "SELECT target FROM events WHERE seq = 2"))
	})

	t.Run("an effect must be of an event of its batch, and a creation of seq 1", func(t *testing.T) {
		_, worker, id := group(t, subject)
		for name, spoil := range map[string]func(*historyv1.AppendRequest){
			"no such event": func(b *historyv1.AppendRequest) {
				b.Effects = []*historyv1.Effect{{Event: 7, Effect: &historyv1.Effect_SetName{SetName: &historyv1.SetName{}}}}
			},
			"create later": func(b *historyv1.AppendRequest) {
				b.Effects = []*historyv1.Effect{{Effect: &historyv1.Effect_CreateConversation{CreateConversation: &historyv1.CreateConversation{Kind: 2}}}}
			},
			"erase all": func(b *historyv1.AppendRequest) {
				b.Effects = []*historyv1.Effect{{Effect: &historyv1.Effect_EraseEvents{EraseEvents: &historyv1.EraseEvents{Below: 2, Kinds: []conversationv1.EventKind{1}}}}}
			},
		} {
			batch := worker.Batch(worker.Fork().Apply(t, worker.Command(id, "alice", Message("m")))...)
			spoil(batch)
			_, err := worker.Append(t.Context(), batch)
			var invalid *store.InvalidError
			require.ErrorAs(t, err, &invalid, name)
		}
		create := worker.Batch(worker.Fork().Apply(t, worker.CreateGroup("alice", "g"))...)
		create.Effects = nil
		_, err := worker.Append(t.Context(), create)
		var invalid *store.InvalidError
		require.ErrorAs(t, err, &invalid)
	})
}
