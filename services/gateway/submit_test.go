package gateway

import (
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

const commandID = "0192f3c0-0000-7000-8000-000000000001"

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

// What the gateway does not take is no outcome, and says which field is to blame.
func TestSubmitsAreHeldToTheStrictestForm(t *testing.T) {
	good := func() *clientv1.Submit {
		return &clientv1.Submit{ConversationId: groupID, CommandId: commandID, Body: text("hello"), Attempt: maxAttempt}
	}
	const level = conversation.MinLevel
	command, refusal := admitCommand("ann", good(), level)
	require.Nil(t, refusal)
	encoded, err := conversation.EncodeBody(text("hello"))
	require.NoError(t, err)
	require.Equal(t, encoded, command.GetBody())
	require.Equal(t, "ann", command.GetSender())
	require.Equal(t, uint32(maxAttempt), command.GetAttempt())
	require.Equal(t, uint32(1), command.GetLevel())

	forbidden := conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN
	for name, c := range map[string]struct {
		spoil func(s *clientv1.Submit)
		level conversation.Level
		code  conversationv1.ErrorCode
		field string
	}{
		"a command id of another version": {func(s *clientv1.Submit) { s.CommandId = "0192f3c0-0000-4000-8000-000000000001" }, level, codeInvalid, "submit.command_id"},
		"an id of a kind to come":         {func(s *clientv1.Submit) { s.ConversationId = "p" + groupID[1:] }, level, codeInvalid, "submit.conversation_id"},
		"too many attempts":               {func(s *clientv1.Submit) { s.Attempt = maxAttempt + 1 }, level, codeInvalid, "submit.attempt"},
		"no body":                         {func(s *clientv1.Submit) { s.Body = nil }, level, codeInvalid, "submit.body"},
		"an empty body":                   {func(s *clientv1.Submit) { s.Body = &conversationv1.Body{} }, level, codeInvalid, "submit.body"},
		"an empty text":                   {func(s *clientv1.Submit) { s.Body = text("") }, level, codeInvalid, "submit.body.message.text"},
		"what only services may ask": {func(s *clientv1.Submit) {
			s.Body = &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: "bob"}}}
		}, level, forbidden, "submit.body"},
		"a level that is not in force": {func(*clientv1.Submit) {}, level - 1, codeInvalid, "submit.body"},
		"a create with an id": {func(s *clientv1.Submit) {
			s.Body = &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP}}}
		}, level, codeInvalid, "submit.conversation_id"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.spoil(s)
			_, refusal := admitCommand("ann", s, c.level)
			require.Equal(t, c.code, refusal.GetCode())
			require.Equal(t, c.field, refusal.GetField())
		})
	}
	_, refusal = admitCommand("ann", good(), level-1)
	require.Contains(t, refusal.GetMessage(), "installation's level", "it says what to do")
}

// A create names no conversation: its id follows from the command.
func TestACreateGetsItsId(t *testing.T) {
	command, refusal := admitCommand("ann", &clientv1.Submit{CommandId: commandID, Body: &conversationv1.Body{
		Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: "x", Members: []string{"bob"}}},
	}}, conversation.MaxLevel())
	require.Nil(t, refusal)
	require.Equal(t, conversation.GroupID("ann", commandID), command.GetConversationId())
}

// Bodies are encoded canonically, whatever the order of a map.
func TestBodiesAreEncodedCanonically(t *testing.T) {
	body := text("x")
	body.GetMessage().Metadata = map[string]string{"b": "1", "a": "2", "c": "3"}
	want, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	for range 20 {
		command, refusal := admitCommand("ann", &clientv1.Submit{ConversationId: groupID, CommandId: commandID, Body: body}, 1)
		require.Nil(t, refusal)
		require.Equal(t, want, command.GetBody())
	}
}
