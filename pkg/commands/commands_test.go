package commands_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/commands"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

const groupID = "g0123456789abcdefghijklmnop"

const commandID = "0192f3c0-0000-7000-8000-000000000001"

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

// An error of Make is not an outcome. It names the invalid field.
func TestSubmitsAreHeldToTheStrictestForm(t *testing.T) {
	good := func() commands.Request {
		return commands.Request{Sender: "ann", ConversationID: groupID, CommandID: commandID, Body: text("hello"), Attempt: protocol.MaxAttempt}
	}
	const level = conversation.MinLevel
	command, refusal := commands.Make(good(), level)
	require.Nil(t, refusal)
	encoded, err := conversation.EncodeBody(text("hello"))
	require.NoError(t, err)
	require.Equal(t, encoded, command.GetBody())
	require.Equal(t, "ann", command.GetSender())
	require.Equal(t, uint32(protocol.MaxAttempt), command.GetAttempt())
	require.Equal(t, uint32(1), command.GetLevel())

	const invalid = conversationv1.ErrorCode_ERROR_CODE_INVALID
	const forbidden = conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN
	for name, c := range map[string]struct {
		spoil func(s *commands.Request)
		level conversation.Level
		code  conversationv1.ErrorCode
		field string
	}{
		"a command id of another version": {func(s *commands.Request) { s.CommandID = "0192f3c0-0000-4000-8000-000000000001" }, level, invalid, "command_id"},
		"an id of a kind to come":         {func(s *commands.Request) { s.ConversationID = ids.Conversation("p" + groupID[1:]) }, level, invalid, "conversation_id"},
		"too many attempts":               {func(s *commands.Request) { s.Attempt = protocol.MaxAttempt + 1 }, level, invalid, "attempt"},
		"no body":                         {func(s *commands.Request) { s.Body = nil }, level, invalid, "body"},
		"an empty body":                   {func(s *commands.Request) { s.Body = &conversationv1.Body{} }, level, invalid, "body"},
		"an empty text":                   {func(s *commands.Request) { s.Body = text("") }, level, invalid, "body.message.text"},
		"what only services may ask": {func(s *commands.Request) {
			s.Body = &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: "bob"}}}
		}, level, forbidden, "body"},
		"a level that is not in force":       {func(*commands.Request) {}, level - 1, invalid, "body"},
		"a carriage return at a lower level": {func(s *commands.Request) { s.Body = text("a\r\nb") }, level, invalid, "body"},
		"a mapped sender at a lower level":   {func(s *commands.Request) { s.Sender = "ann~40x" }, level, invalid, "body"},
		"a mapped member at a lower level": {func(s *commands.Request) {
			s.Body = &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"bob", "ann~40x"}}}}
		}, level, invalid, "body"},
		"a create with an id": {func(s *commands.Request) {
			s.Body = &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP}}}
		}, level, invalid, "conversation_id"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.spoil(&s)
			_, refusal := commands.Make(s, c.level)
			require.Equal(t, c.code, refusal.GetCode())
			require.Equal(t, c.field, refusal.GetField())
		})
	}
	_, refusal = commands.Make(good(), level-1)
	require.Contains(t, refusal.GetMessage(), "installation's level", "it says what to do")
}

// A create names no conversation, because its id is computed from the command.
func TestACreateGetsItsId(t *testing.T) {
	command, refusal := commands.Make(commands.Request{Sender: "ann", CommandID: commandID, Body: &conversationv1.Body{
		Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_GROUP, Name: "x", Members: []string{"bob"}}},
	}}, conversation.MaxLevel())
	require.Nil(t, refusal)
	require.Equal(t, conversation.GroupID("ann", commandID), ids.Conversation(command.GetConversationId()))
}

// Bodies are encoded canonically, whatever the order of a map.
func TestBodiesAreEncodedCanonically(t *testing.T) {
	body := text("x")
	body.GetMessage().Metadata = map[string]string{"b": "1", "a": "2", "c": "3"}
	want, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	for range 20 {
		command, refusal := commands.Make(commands.Request{Sender: "ann", ConversationID: groupID, CommandID: commandID, Body: body}, 1)
		require.Nil(t, refusal)
		require.Equal(t, want, command.GetBody())
	}
}

// Services may send commands that users may not send, including commands to conversations that a newer build created.
func TestTheServerMayErase(t *testing.T) {
	erase := &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Sender: "bob"}}}
	for _, id := range []string{groupID, "p" + groupID[1:]} {
		command, refusal := commands.Make(commands.Request{
			Sender: conversation.ServerUser, ConversationID: ids.Conversation(id), CommandID: commandID, Body: erase,
		}, conversation.MaxLevel())
		require.Nil(t, refusal)
		require.Equal(t, id, command.GetConversationId())
		require.NotEmpty(t, command.GetSalt())
	}
	_, refusal := commands.Make(commands.Request{Sender: conversation.ServerUser, ConversationID: "x", CommandID: commandID, Body: erase}, conversation.MaxLevel())
	require.Equal(t, "conversation_id", refusal.GetField())
}

// A command that became a dead letter is made again unchanged, in the next attempt.
func TestACommandThatWasPutAsideIsMadeAnew(t *testing.T) {
	command, refusal := commands.Make(commands.Request{Sender: "ann", ConversationID: groupID, CommandID: commandID, Attempt: 3, Body: text("x")}, 1)
	require.Nil(t, refusal)
	again, ok := commands.Again(command)
	require.True(t, ok)
	require.Equal(t, command.GetBody(), again.GetBody())
	require.Equal(t, uint32(4), again.GetAttempt())
	require.NotEqual(t, command.GetSalt(), again.GetSalt())
	command.CommandId = "x"
	_, ok = commands.Again(command)
	require.False(t, ok)
}

// BenchmarkMake measures the gateway's work on a message before it is published.
func BenchmarkMake(b *testing.B) {
	request := commands.Request{Sender: "ann", ConversationID: groupID, CommandID: commandID, Body: text("a message of the usual length, which is not long")}
	b.ReportAllocs()
	for b.Loop() {
		command, refusal := commands.Make(request, 1)
		require.Nil(b, refusal)
		_ = command
	}
}
