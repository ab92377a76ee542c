package storetest

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/rebuild"
	"github.com/runnelhq/runnel/services/history/store"
)

// testRebuild checks I11: views and states rebuilt from the log equal those that appends wrote.
func testRebuild(t *testing.T, subject Subject) {
	t.Helper()
	db := subject.New(t)
	users := []string{"alice", "bob", "carol"}
	run := uint32(0)
	rapid.Check(t, func(rt *rapid.T) {
		run++
		worker := NewWorker(db, ids.Partition(run%Partitions), &Clock{n: int64(run) * 1_000_000})
		watermark, err := db.Watermark(context.WithoutCancel(t.Context()), worker.Partition)
		require.NoError(t, err)
		worker.Watermark = watermark
		id := ids.Conversation(worker.Commit(t, worker.CreateGroup("alice", "our group", "bob", "carol"))[0].GetConversationId())
		for range rapid.IntRange(0, 30).Draw(rt, "steps") {
			sender, body := drawBody(rt, users, uint64(worker.States[string(id)].Head))
			if attempt := worker.Fork(); attempt.try(t, worker.Command(string(id), sender, body)) {
				*worker = *attempt
			}
		}
		before := viewsOf(t, db, string(id), users)
		// Write wrong views: the rebuild must replace all of them.
		put := []*historyv1.MessageRow{{Seq: 1, Replies: 9}}
		done, err := db.ReplaceViews(context.WithoutCancel(t.Context()), id, worker.States[string(id)].Head, put, []*historyv1.Reaction{{Target: 1, UserId: "x", Emoji: "x", Seq: 1}})
		require.NoError(t, err)
		require.True(t, done)
		_, err = rebuild.All(context.WithoutCancel(t.Context()), one{db, string(id)}, func(_ ids.Conversation, head ids.Seq) {
			require.Equal(t, worker.States[string(id)].Head, head)
		})
		require.NoError(t, err)
		require.Equal(t, before, viewsOf(t, db, string(id), users))
		replayed := replay(t, db, string(id))
		require.Equal(t, worker.States[string(id)], replayed, "the state equals that of the log, too")
	})

	t.Run("while the conversation gets new events", func(t *testing.T) {
		db, worker, id := group(t, subject)
		worker.Commit(t, worker.Command(id, "alice", Message("2")))
		var running sync.WaitGroup
		done := make(chan struct{})
		running.Go(func() {
			defer close(done)
			for i := range 40 {
				worker.Commit(t, worker.Command(id, "alice", Edit(2, itoa(i))), worker.Command(id, "bob", Reply("r", 2)), worker.Command(id, "bob", React(2, fmt.Sprint("e", i%3), i%6 >= 3)))
			}
		})
		for building := true; building; {
			select {
			case <-done:
				building = false
			default:
			}
			_, err := rebuild.All(t.Context(), db, func(ids.Conversation, ids.Seq) {})
			require.NoError(t, err)
		}
		running.Wait()
		row := facts(t, db, id, 2, "").GetRow()
		require.Equal(t, uint32(40), row.GetReplies())
		require.Equal(t, uint64(120), row.GetEditSeq())
	})
}

// one is a store with one conversation.
type one struct {
	store.Store
	id string
}

func (o one) ConversationIDs(_ context.Context, after ids.Conversation) ([]string, error) {
	if after != "" {
		return nil, nil
	}
	return []string{o.id}, nil
}

// try applies and commits a command, unless it is refused.
func (w *Worker) try(t *testing.T, command *brokerv1.Command) bool {
	t.Helper()
	event, refusal := w.apply(t, command, &known{})
	if refusal != nil {
		return false
	}
	duplicates, err := w.Append(context.WithoutCancel(t.Context()), w.Batch(event))
	require.NoError(t, err)
	require.Empty(t, duplicates)
	return true
}

func drawBody(rt *rapid.T, users []string, head uint64) (sender string, body *conversationv1.Body) {
	sender = rapid.SampledFrom(users).Draw(rt, "sender")
	target := rapid.Uint64Range(1, head).Draw(rt, "target")
	switch rapid.IntRange(0, 9).Draw(rt, "kind") {
	case 0, 1:
		return sender, Message("m")
	case 2:
		return sender, Reply("r", target)
	case 3:
		return sender, Edit(target, "e")
	case 4:
		return sender, Delete(target)
	case 5, 6:
		return sender, React(target, rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "emoji"), false)
	case 7:
		return sender, React(target, rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "emoji"), true)
	case 8:
		return sender, Rename("n")
	}
	if rapid.Bool().Draw(rt, "by sender") {
		return string(conversation.ServerUser), Erase(&conversationv1.Erase{Sender: sender})
	}
	return string(conversation.ServerUser), Erase(&conversationv1.Erase{Seqs: []uint64{target}})
}

// viewsOf formats all views of a conversation.
func viewsOf(t *testing.T, s store.Store, id string, users []string) (views []string) {
	t.Helper()
	for _, event := range ReadAll(t, s, id) {
		for _, user := range append(users, "x") {
			found, err := s.Facts(context.WithoutCancel(t.Context()), []*historyv1.Need{{ConversationId: id, Seq: event.GetSeq(), UserId: user}})
			require.NoError(t, err)
			row := found[0].GetRow()
			var view strings.Builder
			fmt.Fprint(&view, event.GetSeq(), row.GetSeq(), row.GetEditSeq(), row.GetEditTimeMs(), row.GetDeletedSeq(), row.GetReplies(), row.GetLastReplySeq())
			for _, reaction := range found[0].GetReactions() {
				fmt.Fprint(&view, " ", reaction.GetUserId(), reaction.GetEmoji(), reaction.GetSeq())
			}
			views = append(views, view.String())
		}
	}
	return views
}

// replay folds a log from its beginning.
func replay(t *testing.T, s store.Store, id string) (state *conversation.State) {
	t.Helper()
	for _, event := range ReadAll(t, s, id) {
		state = conversation.Fold(state, event)
	}
	return state
}
