package e2e_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// TestUsersOfRealIssuers has users whose ids are those of real issuers talk to each other, and an operator who names them as the
// issuer does.
func TestUsersOfRealIssuers(t *testing.T) {
	h := newHouse(t)
	c, d := h.clerk(nil), h.door(nil)
	h.ready(c)
	names := []string{"auth0|507f1f77bcf86cd799439011", "ann@example.com", "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", "https://idp.example.com/u/7"}
	users := make([]string, len(names))
	for i, name := range names {
		user, err := conversation.MapUser(name)
		require.NoError(t, err)
		users[i] = string(user)
	}
	id := h.newGroup(users...)
	for i, name := range names {
		r := d.login(t, name) // the token has the issuer's name
		r.seqs(1)
		answer := r.ask(submit(id, text("from "+name)))
		require.NotNil(t, answer.GetOutcome(), "%v", answer)
		for _, typed := range []string{name, users[i]} {
			user, err := c.GetUser(t.Context(), &adminv1.GetUserRequest{UserId: typed})
			require.NoError(t, err)
			require.Len(t, user.GetConnections(), 1)
			require.Equal(t, users[i], user.GetConnections()[0].GetConnection().GetUserId())
			list, err := c.ListConnections(t.Context(), &adminv1.ListConnectionsRequest{UserId: typed})
			require.NoError(t, err)
			require.Len(t, list.GetConnections(), 1)
			conversations, err := c.ListConversations(t.Context(), &adminv1.ListConversationsRequest{UserId: typed, Limit: 10})
			require.NoError(t, err)
			require.Len(t, conversations.GetConversations(), 1)
			explained, err := c.Explain(t.Context(), &adminv1.ExplainRequest{UserId: typed, ConversationId: id, Seq: 1})
			require.NoError(t, err)
			require.Contains(t, explained.GetSummary(), name)
		}
	}
	erased, err := c.Erase(t.Context(), &adminv1.EraseRequest{
		ConversationId: id, CommandId: uuid.Must(uuid.NewV7()).String(), Erase: &conversationv1.Erase{Sender: names[1]},
	})
	require.NoError(t, err)
	require.Nil(t, erased.GetOutcome().GetError())
	closed, err := c.Disconnect(t.Context(), &adminv1.DisconnectRequest{UserId: names[2]})
	require.NoError(t, err)
	require.EqualValues(t, 1, closed.GetClosed())
	revoked, err := c.RevokeUser(t.Context(), &adminv1.RevokeUserRequest{UserId: names[0]})
	require.NoError(t, err)
	require.EqualValues(t, 1, revoked.GetClosed())

	for _, bad := range []string{"", "a\nb", "a\u202eb", string(make([]byte, 100))} {
		_, err := c.GetUser(t.Context(), &adminv1.GetUserRequest{UserId: bad})
		requireCode(t, codes.InvalidArgument, err)
	}
}
