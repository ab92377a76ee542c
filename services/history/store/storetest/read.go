package storetest

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func itoa(i int) string { return strconv.Itoa(i) }

// seqs formats a page in short form: "3 4 | hidden 1-2 | head 4 more member".
func seqs(page *historyv1.ReadResponse) string {
	var b strings.Builder
	for _, event := range page.GetEvents() {
		b.WriteString(strconv.FormatUint(event.GetSeq(), 10) + " ")
	}
	b.WriteString("|")
	for _, hidden := range page.GetHidden() {
		b.WriteString(" hidden " + strconv.FormatUint(hidden.GetFirst(), 10) + "-" + strconv.FormatUint(hidden.GetLast(), 10))
	}
	b.WriteString("| head " + strconv.FormatUint(page.GetHead(), 10))
	if page.GetMore() {
		b.WriteString(" more")
	}
	if page.GetMember() {
		b.WriteString(" member")
	}
	return b.String()
}

func testRead(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("a viewer sees from joining to leaving, both included, each time", func(t *testing.T) {
		db, worker, id := group(t, subject)
		commands := []*brokerv1.Command{
			worker.Command(id, "alice", Message("2")), worker.Command(id, "alice", Add("carol")),
			worker.Command(id, "carol", Message("4")), worker.Command(id, "carol", Leave()),
			worker.Command(id, "alice", Message("6")), worker.Command(id, "alice", Message("7")),
			worker.Command(id, "bob", Add("carol")), worker.Command(id, "carol", Message("9")),
			worker.Command(id, "alice", Remove("carol")), worker.Command(id, "alice", Message("11")),
			worker.Command(id, "bob", Leave()),
		}
		worker.Commit(t, commands...)
		for _, test := range []struct {
			name, viewer string
			request      *historyv1.ReadRequest
			want         string
		}{
			{"whole", "", &historyv1.ReadRequest{}, "1 2 3 4 5 6 7 8 9 10 11 12 || head 12"},
			{"member from the first", "alice", &historyv1.ReadRequest{}, "1 2 3 4 5 6 7 8 9 10 11 12 || head 12 member"},
			{"left at the last", "bob", &historyv1.ReadRequest{After: 10}, "11 12 || head 12"},
			{"came, went, came, was removed", "carol", &historyv1.ReadRequest{}, "3 4 5 8 9 10 | hidden 1-2 hidden 6-7| head 10"},
			{"first page ends before the gap", "carol", &historyv1.ReadRequest{Limit: 3}, "3 4 5 | hidden 1-2| head 10 more"},
			{"next page begins in the gap", "carol", &historyv1.ReadRequest{After: 5, Limit: 2}, "8 9 | hidden 6-7| head 10 more"},
			{"inside the gap", "carol", &historyv1.ReadRequest{After: 6}, "8 9 10 | hidden 7-7| head 10"},
			{"at the end", "carol", &historyv1.ReadRequest{After: 10}, "|| head 10"},
			{"beyond the end", "carol", &historyv1.ReadRequest{After: 99}, "|| head 10"},
			{"newest first", "carol", &historyv1.ReadRequest{Backward: true, Limit: 4}, "10 9 8 5 | hidden 6-7| head 10 more"},
			{"before the gap's end", "carol", &historyv1.ReadRequest{Backward: true, Before: 7, Limit: 2}, "5 4 | hidden 6-6| head 10 more"},
			{"down to the first", "carol", &historyv1.ReadRequest{Backward: true, Before: 5}, "4 3 || head 10"},
			{"before the first", "carol", &historyv1.ReadRequest{Backward: true, Before: 3}, "|| head 10"},
			{"before a stretch that was not theirs", "carol", &historyv1.ReadRequest{Backward: true, Before: 99, Limit: 1}, "10 || head 10 more"},
			{"whole, newest first", "", &historyv1.ReadRequest{Backward: true, Limit: 2}, "12 11 || head 12 more"},
			{"whole, before one", "", &historyv1.ReadRequest{Backward: true, Before: 1}, "|| head 12"},
		} {
			test.request.ConversationId, test.request.Viewer = id, test.viewer
			page, err := db.Read(t.Context(), test.request)
			require.NoError(t, err, test.name)
			require.Equal(t, test.want, seqs(page), test.name)
		}
	})

	t.Run("strangers and nonexistent conversations get the same answer", func(t *testing.T) {
		db, _, id := group(t, subject)
		for _, request := range []*historyv1.ReadRequest{
			{ConversationId: id, Viewer: "stranger"},
			{ConversationId: "g00000000000000000000000000", Viewer: "alice"},
			{ConversationId: "g00000000000000000000000000"},
		} {
			_, err := db.Read(t.Context(), request)
			require.ErrorIs(t, err, store.ErrNotFound)
		}
	})

	t.Run("a page ends at about a mebibyte", func(t *testing.T) {
		db, worker, id := group(t, subject)
		var commands []*brokerv1.Command
		for range 300 {
			commands = append(commands, worker.Command(id, "alice", Message(strings.Repeat("x", 8000))))
		}
		worker.Commit(t, commands...)
		page, err := db.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, Limit: store.MaxPage})
		require.NoError(t, err)
		require.True(t, page.GetMore())
		require.InDelta(t, store.MaxPageBytes/8200, len(page.GetEvents()), 10)
		require.Len(t, ReadAll(t, db, id), 301)

		page, err = db.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, Limit: store.MaxPage, Backward: true})
		require.NoError(t, err)
		require.True(t, page.GetMore())
		require.Equal(t, uint64(301), page.GetEvents()[0].GetSeq())
	})

	t.Run("damage is named by seq and does not hide its neighbours", func(t *testing.T) {
		db, worker, id := group(t, subject)
		for range 4 {
			worker.Commit(t, worker.Command(id, "alice", Message("m")))
		}
		db.SetBody(t, id, 3, []byte{0xff, 0xff})
		requireBroken(t, ReadAll(t, db, id), 3)
		db.SetBody(t, id, 3, nil)
		events := ReadAll(t, db, id)
		require.Len(t, events, 5)
		require.Empty(t, events[2].GetCommitment(), "it does not pass as erased")
		requireBroken(t, events, 3)
		changed, err := Message("changed").MarshalVT()
		require.NoError(t, err)
		db.SetBody(t, id, 3, changed)
		requireBroken(t, ReadAll(t, db, id), 3)

		db.Delete(t, id, 4)
		_, err = db.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, After: 3})
		var gap *store.GapError
		require.ErrorAs(t, err, &gap)
		require.Equal(t, store.GapError{ConversationID: ids.Conversation(id), First: 4, Last: 4}, *gap)
		db.Delete(t, id, 5)
		page, err := db.Read(t.Context(), &historyv1.ReadRequest{ConversationId: id, After: 3})
		require.NoError(t, err)
		require.Equal(t, "|| head 5", seqs(page), "the head shows that the end is missing, and the reader does not read in circles")
	})

	t.Run("commands are found by their key", func(t *testing.T) {
		db, worker, id := group(t, subject)
		one := worker.Command(id, "alice", Message("1"))
		want := worker.Commit(t, one)
		got, err := db.Commands(t.Context(), []*historyv1.CommandKey{
			{ConversationId: id, Sender: "bob", CommandId: one.GetCommandId()},
			{ConversationId: id, Sender: "alice", CommandId: one.GetCommandId()},
			{ConversationId: "g00000000000000000000000000", Sender: "alice", CommandId: one.GetCommandId()},
		})
		require.NoError(t, err)
		requireEvents(t, want, got)
		none, err := db.Commands(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, none)
	})

	t.Run("commands that are too large together are refused", func(t *testing.T) {
		db, worker, id := group(t, subject)
		metadata := map[string]string{}
		for i := range 16 {
			metadata["k"+itoa(i)] = strings.Repeat("v", 1024)
		}
		var keys []*historyv1.CommandKey
		var commands []*brokerv1.Command
		for range store.MaxCommandsBytes/24_000 + 2 {
			command := worker.Command(id, "alice", &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
				Text: strings.Repeat("x", 8192), Metadata: metadata,
			}}})
			keys = append(keys, &historyv1.CommandKey{ConversationId: id, Sender: "alice", CommandId: command.GetCommandId()})
			commands = append(commands, command)
		}
		worker.Commit(t, commands...)
		_, err := db.Commands(t.Context(), keys)
		require.ErrorIs(t, err, store.ErrTooLarge)
		found, err := db.Commands(t.Context(), keys[:100])
		require.NoError(t, err)
		require.Len(t, found, 100)
	})

	t.Run("heads", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		heads, err := db.Heads(t.Context(), []string{id, "g00000000000000000000000000", id})
		require.NoError(t, err)
		require.Len(t, heads, 1)
		require.Equal(t, uint64(2), heads[0].GetHead())
		require.Equal(t, worker.States[id].HeadHash, heads[0].GetHeadHash())
		heads, err = db.Heads(t.Context(), nil)
		require.NoError(t, err)
		require.Empty(t, heads)
	})
}

// requireBroken checks that verification reports seq.
func requireBroken(t *testing.T, events []*conversationv1.Event, seq uint64) {
	t.Helper()
	verifier := chain.From(0, chain.Zero)
	for _, event := range events {
		if _, err := verifier.Next(event); err != nil {
			var broken *chain.Broken
			require.ErrorAs(t, err, &broken)
			require.Equal(t, ids.Seq(seq), broken.Seq)
			return
		}
	}
	require.Fail(t, "the damage was not noticed")
}
