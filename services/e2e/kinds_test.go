package e2e_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/client"
	"github.com/runnelhq/runnel/pkg/frame"
)

// Messages are edited, answered, reacted to and deleted through the Go client, and read as they are now.
func TestMessagesAreReadAsTheyAreNow(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		t.Run(codec.String(), func(t *testing.T) {
			s := start(t, nil)
			ann, bob := open(t, s.url(), "ann", codec, nil), open(t, s.url(), "bob", codec, nil)
			ctx, cancel := ann.patient()
			defer cancel()
			id, err := ann.CreateGroup(ctx, "group", "bob")
			require.NoError(t, err)
			require.EqualValues(t, 2, ann.done(id, text("one")))
			require.EqualValues(t, 3, bob.done(id, text("two")))
			require.EqualValues(t, 4, ann.done(id, edit(2, "uno")))
			require.EqualValues(t, 5, bob.done(id, react(2, "👍")))
			require.EqualValues(t, 6, ann.done(id, react(2, "👍")))
			require.EqualValues(t, 7, ann.done(id, react(2, "🎉")))
			require.EqualValues(t, 8, bob.done(id, answer(2, "quite so")))
			require.EqualValues(t, 9, ann.done(id, react(3, "👍")))
			require.EqualValues(t, 10, bob.done(id, remove(3)))
			removed, err := ann.Unreact(ctx, id, 2, "🎉")
			require.NoError(t, err)
			require.EqualValues(t, 11, removed.GetSeq())

			ann.refused(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, id, edit(8, "not mine"))
			ann.refused(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, id, react(2, "👍"))
			ann.refused(conversationv1.ErrorCode_ERROR_CODE_INVALID, id, react(1, "👍"))
			bob.refused(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, id, edit(3, "gone"))

			kinds := []conversationv1.EventKind{1, 2, 2, 7, 9, 9, 9, 2, 9, 8, 9}
			for i, event := range bob.upTo(11) {
				require.Equal(t, kinds[i], event.GetKind())
			}
			require.Len(t, ann.upTo(11), len(kinds))

			page, err := bob.ReadMessagesAfter(ctx, id, 0, 50)
			require.NoError(t, err)
			require.EqualValues(t, 11, page.GetHead())
			require.False(t, page.GetMore())
			require.Len(t, page.GetMessages(), 3)
			one, two, reply := page.GetMessages()[0], page.GetMessages()[1], page.GetMessages()[2]
			require.EqualValues(t, 2, one.GetSeq())
			require.Equal(t, "uno", one.GetMessage().GetText())
			require.EqualValues(t, 4, one.GetEditSeq())
			require.Equal(t, []string{"👍 2 true"}, reactions(one))
			require.EqualValues(t, 1, one.GetReplies())
			require.EqualValues(t, 8, one.GetLastReplySeq())
			require.EqualValues(t, 3, two.GetSeq())
			require.EqualValues(t, 10, two.GetDeletedSeq())
			require.Nil(t, two.GetMessage(), "it is gone")
			require.Empty(t, two.GetReactions())
			require.EqualValues(t, 8, reply.GetSeq())
			require.EqualValues(t, 2, reply.GetMessage().GetReplyTo())

			newest, err := ann.ReadMessagesBefore(ctx, id, 0, 2)
			require.NoError(t, err)
			require.True(t, newest.GetMore())
			require.EqualValues(t, 8, newest.GetMessages()[0].GetSeq())
			require.EqualValues(t, 3, newest.GetMessages()[1].GetSeq())
			rest, err := ann.ReadMessagesBefore(ctx, id, 3, 2)
			require.NoError(t, err)
			require.False(t, rest.GetMore())
			require.Len(t, rest.GetMessages(), 1)
			require.EqualValues(t, 2, rest.GetMessages()[0].GetSeq())

			eve := open(t, s.url(), "eve", codec, nil)
			_, err = eve.ReadMessagesAfter(ctx, id, 0, 50)
			var refusal *client.RefusedError
			require.ErrorAs(t, err, &refusal)
			require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, refusal.Code)

			// Events that belong to the deleted message are erased from the log as well, and the log verifies.
			log, err := bob.ReadAfter(ctx, id, 0, 100)
			require.NoError(t, err)
			for _, event := range log.Events {
				want := chain.Verified
				if seq := event.GetSeq(); seq == 3 || seq == 9 {
					want = chain.Erased
					require.Nil(t, event.GetBody())
				}
				require.Equal(t, want, event.Content, "seq %d", event.GetSeq())
			}
		})
	}
}

func reactions(message *clientv1.MessageView) (all []string) {
	for _, r := range message.GetReactions() {
		all = append(all, summary(r))
	}
	return all
}

func summary(r *clientv1.ReactionSummary) string {
	return fmt.Sprint(r.GetEmoji(), " ", r.GetCount(), " ", r.GetMine())
}
