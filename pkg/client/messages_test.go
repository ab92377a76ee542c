package client_test

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/client"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestReadingMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		type result struct {
			page *clientv1.Messages
			err  error
		}
		done := make(chan result, 1)
		go func() {
			page, err := c.ReadMessagesBefore(t.Context(), "a", 9, 3)
			done <- result{page, err}
		}()
		f := l.recv(t)
		require.True(t, f.GetReadMessages().GetBackward())
		require.Equal(t, uint64(9), f.GetReadMessages().GetBefore())
		require.Equal(t, uint32(3), f.GetReadMessages().GetLimit())
		l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE))
		f = l.recv(t)
		l.send(&clientv1.ServerFrame{Id: f.GetId(), Message: &clientv1.ServerFrame_Messages{Messages: &clientv1.Messages{Head: 12}}})
		r := <-done
		require.NoError(t, r.err)
		require.Equal(t, uint64(12), r.page.GetHead())

		go func() {
			page, err := c.ReadMessagesAfter(t.Context(), "a", 9, 3)
			done <- result{page, err}
		}()
		f = l.recv(t)
		require.False(t, f.GetReadMessages().GetBackward())
		require.Equal(t, uint64(9), f.GetReadMessages().GetAfter())
		l.send(refuse(f.GetId(), conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND))
		var refusal *client.RefusedError
		require.ErrorAs(t, (<-done).err, &refusal)
	})
}

func TestChangingMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGateway()
		c, _ := start(t, g)
		l, _ := g.accept(t, connected())
		ctx := t.Context()
		metadata := map[string]string{"lang": "en"}
		for _, test := range []struct {
			call func() (*conversationv1.Outcome, error)
			want *conversationv1.Body
		}{
			{
				func() (*conversationv1.Outcome, error) {
					return c.Edit(ctx, "a", 3, "new", client.WithMetadata(metadata), client.ReplyTo(2))
				},
				&conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 3, Text: "new", Metadata: metadata}}},
			},
			{
				func() (*conversationv1.Outcome, error) { return c.Delete(ctx, "a", 3) },
				&conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 3}}},
			},
			{
				func() (*conversationv1.Outcome, error) { return c.React(ctx, "a", 3, "👋") },
				&conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 3, Emoji: "👋"}}},
			},
			{
				func() (*conversationv1.Outcome, error) { return c.Unreact(ctx, "a", 3, "👋") },
				&conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: 3, Emoji: "👋", Remove: true}}},
			},
		} {
			done := make(chan error, 1)
			go func() { _, err := test.call(); done <- err }()
			f := l.recv(t)
			require.Equal(t, "a", f.GetSubmit().GetConversationId())
			require.True(t, proto.Equal(test.want, f.GetSubmit().GetBody()), f.String())
			l.send(commit(f, 4))
			require.NoError(t, <-done)
		}
	})
}
