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

// given reads events of a conversation by one method of the store. log is the whole log.
type given func(t *testing.T, db *Database, worker *Worker, id string, log []*conversationv1.Event) ([]*conversationv1.Event, error)

// readings returns all methods that read events.
func readings() map[string]given {
	read := func(request *historyv1.ReadRequest) given {
		return func(t *testing.T, db *Database, _ *Worker, id string, _ []*conversationv1.Event) ([]*conversationv1.Event, error) {
			t.Helper()
			request.ConversationId = id
			page, err := db.Read(t.Context(), request)
			return page.GetEvents(), err
		}
	}
	messages := func(request *historyv1.ReadMessagesRequest) given {
		return func(t *testing.T, db *Database, _ *Worker, id string, _ []*conversationv1.Event) (events []*conversationv1.Event, err error) {
			t.Helper()
			request.ConversationId, request.Viewer, request.Kinds = id, "alice", conversation.MessageKinds()
			page, err := db.ReadMessages(t.Context(), request)
			for _, message := range page.GetMessages() {
				events = append(events, message.GetEvent())
				if message.GetEdit() != nil {
					events = append(events, message.GetEdit())
				}
			}
			return events, err
		}
	}
	return map[string]given{
		"all":                     read(&historyv1.ReadRequest{}),
		"from the middle":         read(&historyv1.ReadRequest{After: 5}),
		"one event":               read(&historyv1.ReadRequest{After: 6, Limit: 1}),
		"the first":               read(&historyv1.ReadRequest{Limit: 1}),
		"all, falling":            read(&historyv1.ReadRequest{Backward: true}),
		"falling from the middle": read(&historyv1.ReadRequest{Backward: true, Before: 8, Limit: 2}),
		"the first, falling":      read(&historyv1.ReadRequest{Backward: true, Before: 2}),
		"a viewer's":              read(&historyv1.ReadRequest{Viewer: "carol"}),
		"a viewer's, falling":     read(&historyv1.ReadRequest{Viewer: "carol", Backward: true}),
		"messages":                messages(&historyv1.ReadMessagesRequest{After: 1}),
		"messages, falling":       messages(&historyv1.ReadMessagesRequest{Backward: true}),
		"the feed": func(t *testing.T, db *Database, worker *Worker, _ string, _ []*conversationv1.Event) (events []*conversationv1.Event, err error) {
			t.Helper()
			page, err := db.ReadFeed(t.Context(), worker.Partition, nil, store.MaxPage)
			for _, entry := range page.GetEntries() {
				events = append(events, entry.GetEvent())
			}
			return events, err
		},
		"commands": func(t *testing.T, db *Database, _ *Worker, _ string, log []*conversationv1.Event) ([]*conversationv1.Event, error) {
			t.Helper()
			keys := make([]*historyv1.CommandKey, len(log))
			for i, event := range log {
				keys[i] = &historyv1.CommandKey{ConversationId: event.GetConversationId(), Sender: event.GetSender(), CommandId: event.GetCommandId()}
			}
			return db.Commands(t.Context(), keys)
		},
		"duplicates": func(t *testing.T, _ *Database, worker *Worker, _ string, log []*conversationv1.Event) (events []*conversationv1.Event, err error) {
			t.Helper()
			duplicates, err := worker.Fork().Append(t.Context(), worker.Batch(log[1:]...)) // the first event needs its effects
			for _, duplicate := range duplicates {
				events = append(events, duplicate.GetFirst())
			}
			return events, err
		},
	}
}

// logOfTen makes a log: 1 create, 2 and 3 messages, 4 carol joins, 5 edit of 2, 6 message, 7 carol's message, 8 carol
// leaves, 9 edit of 6, 10 message.
func logOfTen(t *testing.T, worker *Worker, id string) {
	t.Helper()
	worker.Commit(t, worker.Command(id, "alice", Message("2")), worker.Command(id, "bob", Message("3")), worker.Command(id, "alice", Add("carol")))
	worker.Commit(t, worker.Command(id, "alice", Edit(2, "5")), worker.Command(id, "alice", Message("6")), worker.Command(id, "carol", Message("7")))
	worker.Commit(t, worker.Command(id, "carol", Leave()), worker.Command(id, "alice", Edit(6, "9")))
	worker.Commit(t, worker.Command(id, "bob", Message("10")))
}

// testLinks checks the previous hash, which no table contains, for every way in which an event is read.
func testLinks(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("every way to read returns the previous hash", func(t *testing.T) {
		db, worker, id := group(t, subject)
		logOfTen(t, worker, id)
		check := func(name string) {
			log := VerifyLog(t, db, id)
			require.Len(t, log, int(worker.States[id].Head))
			for way, read := range readings() {
				events, err := read(t, db, worker, id, log)
				require.NoError(t, err, "%s, %s", name, way)
				require.NotEmpty(t, events, "%s, %s", name, way)
				for _, event := range events {
					requireProto(t, log[event.GetSeq()-1], event)
				}
			}
		}
		check("as it was written")
		worker.Commit(t, worker.Command(id, string(conversation.ServerUser), Erase(&conversationv1.Erase{Seqs: []uint64{3, 7}})))
		check("erased")
	})

	t.Run("a missing row is named, and no event is returned without its previous hash", func(t *testing.T) {
		for missing := ids.Seq(1); missing <= 9; missing++ {
			db, worker, id := group(t, subject)
			logOfTen(t, worker, id)
			log := VerifyLog(t, db, id)
			db.Delete(t, id, uint64(missing))
			for way, read := range readings() {
				events, err := read(t, db, worker, id, log)
				for _, event := range events {
					requireProto(t, log[event.GetSeq()-1], event)
					require.NotEqual(t, missing+1, ids.Seq(event.GetSeq()), "%d is missing, %s", missing, way)
				}
				if err != nil {
					var gap *store.GapError
					require.ErrorAs(t, err, &gap, "%d is missing, %s", missing, way)
					require.Equal(t, store.GapError{ConversationID: ids.Conversation(id), First: missing, Last: missing}, *gap, way)
					require.Contains(t, err.Error(), id)
				}
			}
		}
	})

	t.Run("a missing row before a range", func(t *testing.T) {
		for missing, request := range map[uint64]*historyv1.ReadRequest{
			1: {Backward: true, Before: 3},
			3: {Viewer: "carol", Backward: true, Before: 5}, // carol joined with event 4
			5: {After: 5},
		} {
			db, worker, id := group(t, subject)
			logOfTen(t, worker, id)
			db.Delete(t, id, missing)
			request.ConversationId = id
			_, err := db.Read(t.Context(), request)
			var gap *store.GapError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, store.GapError{ConversationID: ids.Conversation(id), First: ids.Seq(missing), Last: ids.Seq(missing)}, *gap)
		}
	})

	t.Run("a page ends before a gap, and the next one is an error", func(t *testing.T) {
		db, worker, id := group(t, subject)
		logOfTen(t, worker, id)
		log := VerifyLog(t, db, id)
		for _, seq := range []uint64{5, 6} {
			db.Delete(t, id, seq)
		}
		for _, test := range []struct {
			request *historyv1.ReadRequest
			want    string
			gap     store.GapError
		}{
			{request: &historyv1.ReadRequest{}, want: "1 2 3 4 || head 10 more"},
			{request: &historyv1.ReadRequest{After: 4}, gap: store.GapError{First: 5, Last: 6}},
			{request: &historyv1.ReadRequest{After: 5}, gap: store.GapError{First: 5, Last: 6}},
			{request: &historyv1.ReadRequest{After: 6}, gap: store.GapError{First: 6, Last: 6}},
			{request: &historyv1.ReadRequest{After: 7}, want: "8 9 10 || head 10"},
			{request: &historyv1.ReadRequest{Backward: true}, want: "10 9 8 || head 10 more"},
			{request: &historyv1.ReadRequest{Backward: true, Before: 8}, gap: store.GapError{First: 5, Last: 6}},
			{request: &historyv1.ReadRequest{Backward: true, Before: 7}, want: "4 3 2 1 || head 10"},
			{request: &historyv1.ReadRequest{Viewer: "carol", Backward: true, Before: 8}, gap: store.GapError{First: 5, Last: 6}},
		} {
			test.request.ConversationId = id
			page, err := db.Read(t.Context(), test.request)
			if test.want != "" {
				require.NoError(t, err)
				require.Equal(t, test.want, seqs(page))
				continue
			}
			test.gap.ConversationID = ids.Conversation(id)
			var gap *store.GapError
			require.ErrorAs(t, err, &gap)
			require.Equal(t, test.gap, *gap, test.request)
		}
		page, err := db.ReadFeed(t.Context(), worker.Partition, nil, store.MaxPage)
		require.NoError(t, err)
		require.Len(t, page.GetEntries(), 4)
		require.True(t, page.GetMore())
		_, err = db.ReadFeed(t.Context(), worker.Partition, page.GetEntries()[3].GetPosition(), store.MaxPage)
		var gap *store.GapError
		require.ErrorAs(t, err, &gap)
		require.Equal(t, ids.Seq(log[5].GetSeq()), gap.Last)
	})
}
