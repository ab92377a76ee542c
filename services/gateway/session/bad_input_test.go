package session

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// canary is part of every body and token that must not be logged.
const canary = "c4n4ry"

func submit(id uint64, commandID string) *clientv1.ClientFrame {
	body := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "still here"}}}
	return &clientv1.ClientFrame{Id: id, Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
		ConversationId: groupID, CommandId: commandID, Body: body,
	}}}
}

// Frames that no correct client sends are answered with the name of the field; the session stays open, and nothing of the frame is
// logged.
func TestBadFramesAreRefusedByField(t *testing.T) {
	const cmd = "0192f3c0-0000-7000-8000-000000000001"
	in := func(conversationID, commandID, body string) string {
		return fmt.Sprintf(`{"id":"7","submit":{"conversationId":%q,"commandId":%q,"body":%s}}`, conversationID, commandID, body)
	}
	message := func(text string) string {
		quoted, err := json.Marshal(text)
		require.NoError(t, err)
		return fmt.Sprintf(`{"message":{"text":%s}}`, quoted)
	}
	const anyField = "-" // of the codec's own words
	for name, c := range map[string]struct{ frame, field string }{
		"not JSON":               {`hello ` + canary, ""},
		"half an object":         {`{"id":"7","submit":{`, "submit"},
		"an array":               {`[1,2,3]`, ""},
		"deep JSON":              {strings.Repeat(`{"submit":`, 1000) + strings.Repeat("}", 1000), anyField},
		"unknown field":          {`{"id":"7","submit":{"seq":"9"}}`, anyField},
		"a sender of one's own":  {`{"id":"7","submit":{"sender":"bob","conversationId":"` + groupID + `"}}`, anyField},
		"a time of one's own":    {`{"id":"7","submit":{"timeMs":"1"}}`, anyField},
		"duplicate keys":         {`{"id":"7","id":"8","pong":{}}`, anyField},
		"wrong type":             {`{"id":"7","read":{"conversationId":5}}`, "read.conversation_id"},
		"two requests":           {`{"id":"7","pong":{},"ack":{}}`, anyField},
		"no request":             {`{"id":"7"}`, anyField},
		"no command id":          {in(groupID, "", message("x")), "submit.command_id"},
		"command id not v7":      {in(groupID, "0192f3c0-0000-4000-8000-000000000001", message("x")), "submit.command_id"},
		"command id with break":  {in(groupID, cmd+"\n", message("x")), "submit.command_id"},
		"wildcard conversation":  {in("*", cmd, message("x")), "submit.conversation_id"},
		"tail conversation":      {in(">", cmd, message("x")), "submit.conversation_id"},
		"dotted conversation":    {in("d.0123456789abcdefghijklmn", cmd, message("x")), "submit.conversation_id"},
		"long conversation":      {in(strings.Repeat("d", 5000), cmd, message("x")), "submit.conversation_id"},
		"long text":              {in(groupID, cmd, message(strings.Repeat("x", protocol.MaxTextBytes+1))), "submit.body.message.text"},
		"text with NUL":          {in(groupID, cmd, message(canary+"\x00")), "submit.body.message.text"},
		"empty text":             {in(groupID, cmd, message("")), "submit.body.message.text"},
		"no body":                {in(groupID, cmd, `{}`), "submit.body"},
		"create with an id":      {in(groupID, cmd, `{"create":{"kind":"KIND_GROUP"}}`), "submit.conversation_id"},
		"channel":                {in("", cmd, `{"create":{"kind":"KIND_CHANNEL"}}`), "submit.body.create.kind"},
		"member with a dot":      {in("", cmd, `{"create":{"kind":"KIND_GROUP","members":["a.b"]}}`), "submit.body.create.members[0]"},
		"read limit":             {`{"id":"7","read":{"conversationId":"` + groupID + `","limit":501}}`, "read.limit"},
		"read both ways":         {`{"id":"7","read":{"conversationId":"` + groupID + `","after":"1","before":"5"}}`, "read.after"},
		"list after nonsense":    {`{"id":"7","listConversations":{"after":"../x"}}`, "list_conversations.after"},
		"members after nonsense": {`{"id":"7","listMembers":{"conversationId":"` + groupID + `","after":"a b"}}`, "list_members.after"},
		"ack of the future":      {`{"id":"7","ack":{"positions":[{"conversationId":"` + groupID + `","delivered":"99"}]}}`, "ack.positions[0]"},
		"a token of another":     {`{"id":"7","refresh":{"token":"token of bob"}}`, "refresh.token"},
		"a forged token":         {`{"id":"7","refresh":{"token":"` + canary + `"}}`, "refresh.token"},
		"a second connect":       {`{"id":"7","connect":{"token":"token of ann","deviceId":"x"}}`, "connect"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			s.store.Put(branch(nil, 3, "x"))
			s.token("bob")
			ann := s.connect("ann", frame.JSON)
			require.NoError(t, ann.far.Send([]byte(c.frame)))
			refused := ann.next().GetError()
			require.NotNil(t, refused)
			if c.field != anyField {
				require.Equal(t, c.field, refused.GetField(), "%v", refused)
			}
			require.NotEmpty(t, refused.GetMessage())
			require.NotContains(t, refused.GetMessage(), canary)
			require.Empty(t, s.submits)

			ann.say(submit(8, cmd))
			require.Equal(t, "ann", s.taken().Command.GetSender(), "the session still works")
			for _, secret := range []string{canary, "token of", "still here"} {
				require.NotContains(t, s.logs.String(), secret)
			}
			require.NotContains(t, s.logs.String(), "panic")
		})
	}
}

// Commands of one message are published in the order of the message, and answered with their own ids.
func TestCommandsOfOneMessageAreTakenInOrder(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.CommandRatePerUser = 1000 })
	s.store.Put(branch(nil, 3, "x"))
	ann := s.connect("ann", frame.Proto)
	const commands = 20
	var message []byte
	name := func(i int) string { return fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", i) }
	for i := range commands {
		message = frame.AppendClient(message, frame.Proto, submit(uint64(100+i), name(i)))
	}
	require.NoError(t, ann.far.Send(message))
	for i := range commands {
		submission := s.taken()
		require.Equal(t, name(i), submission.Command.GetCommandId())
		submission.Done(&conversationv1.Outcome{Seq: uint64(4 + i)})
	}
	for i := range commands {
		f := ann.next()
		require.Equal(t, uint64(100+i), f.GetId())
		require.Equal(t, uint64(4+i), f.GetOutcome().GetSeq())
	}
}
