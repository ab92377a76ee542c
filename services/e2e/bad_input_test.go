package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
)

// canary is part of every body and token that must not be logged.
const canary = "c4n4ry"

// TestBadInputIsRefusedAndNotLogged has one bad frame for each part that refuses some, in the whole system. The answer names the
// field, the connection stays open, and no part logs what the client sent. The tests of the parts have all the others.
func TestBadInputIsRefusedAndNotLogged(t *testing.T) {
	s := start(t, nil)
	ann := s.login("ann", frame.JSON)
	id := ann.ask(submit("", group("bob"))).GetOutcome().GetConversationId()
	const command = `{"id":"7","submit":{"commandId":"0192f3c0-0000-7000-8000-000000000001","conversationId":"`
	for name, c := range map[string]struct{ frame, field string }{
		"the codec":      {`{"id":"7","read":{"conversationId":5,"x":"` + canary + `"}}`, "read.conversation_id"},
		"the requests":   {`{"id":"7","listConversations":{"after":"` + canary + `"}}`, "list_conversations.after"},
		"the rules":      {command + id + `","body":{"message":{"text":"` + canary + `\u0000"}}}}`, "submit.body.message.text"},
		"the session":    {`{"id":"7","connect":{"token":"` + canary + `","deviceId":"d"}}`, "connect"},
		"authentication": {`{"id":"7","refresh":{"token":"` + canary + `"}}`, "refresh.token"},
	} {
		ann := s.login("ann", frame.JSON)
		ann.sendText(c.frame)
		refused := ann.until(func(f *clientv1.ServerFrame) bool { return f.GetError() != nil }).GetError()
		require.Equal(t, c.field, refused.GetField(), "%s: %v", name, refused)
		require.NotContains(t, refused.GetMessage(), canary, name)
		require.NotZero(t, ann.ask(submit(id, text("still here"))).GetOutcome().GetSeq(), name)
	}
	confused := s.login("ann", frame.JSON)
	for range 10 {
		confused.sendText(canary)
	}
	require.Equal(t, errcode.CloseProtocol, confused.closed())

	// Ids cannot be probed: an unknown conversation looks like that of others.
	eve := s.login("eve", frame.JSON, &clientv1.Position{ConversationId: id, Seq: 1})
	foreign := eve.ask(submit(id, text("x"))).GetOutcome().GetError()
	unknown := eve.ask(submit(string(conversation.GroupID("x", "y")), text("x"))).GetOutcome().GetError()
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, foreign.GetCode())
	require.Equal(t, foreign.GetCode(), unknown.GetCode())
	require.Equal(t, foreign.GetMessage(), unknown.GetMessage())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, eve.ask(listMembers(id)).GetError().GetCode())

	for _, secret := range []string{canary, "eyJ", "still here", "panic"} { // tokens begin with eyJ
		require.NotContains(t, s.logs.String(), secret)
	}
}
