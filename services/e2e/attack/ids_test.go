package attack_test

import (
	"fmt"
	"strings"

	"github.com/gorilla/websocket"
	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
)

// subjects are ids that would be subjects, wildcards or paths elsewhere.
var subjects = []string{"*", ">", "in.0", "d.>", "$JS.API.>", "_INBOX.x", "../history", "d0123456789\n", "d0123456789\x00", strings.Repeat("d", 5000), "'; DROP TABLE events; --", "g\u202e0123"}

const command = "0192f3c0-0000-7000-8000-000000000001"

// asks are requests about a conversation, with its id.
var asks = []string{
	`{"id":"7","submit":{"conversationId":%q,"commandId":"` + command + `","body":{"message":{"text":"forged"}}}}`,
	`{"id":"7","submit":{"conversationId":%q,"commandId":"` + command + `","body":{"addMembers":{"members":["eve"]}}}}`,
	`{"id":"7","submit":{"conversationId":%q,"commandId":"` + command + `","body":{"leave":{}}}}`,
	`{"id":"7","read":{"conversationId":%q,"limit":10}}`,
	`{"id":"7","listMembers":{"conversationId":%q}}`,
}

var idAttacks = []attack{
	{
		name: "ids of other people's conversations", tries: "messages, members, reading and leaving, with the id of a conversation of ann and bob", seen: "NOT_FOUND, in the same words as for an id that does not exist; the conversation is as it was",
		bound: bound{sockets: 1, megabytes: 64, calls: 4 * len(asks)}, run: foreign,
	},
	{
		name: "ids that mean something elsewhere", tries: "wildcards and subjects of NATS, paths, SQL, control characters and 5,000 characters as ids", seen: "INVALID with the field; nothing is asked of any service",
		bound: bound{sockets: 1, megabytes: 64, calls: 4}, run: nonsense,
	},
	{
		name: "a sender, sequence or time of one's own", tries: "fields that only the server sets, in requests", seen: "INVALID or unknown field; the conversation is as it was",
		bound: bound{sockets: 1, megabytes: 64, calls: 8}, run: forged,
	},
	{
		name: "device names that mean something elsewhere", tries: "the same ids as device, before authentication", seen: "4500; no name is logged",
		bound: bound{sockets: len(subjects), megabytes: 64}, run: devices,
	},
}

// tell sends a frame as text, and returns the error that answers it.
func (c *client) tell(text string) *conversationv1.Error {
	c.t.Helper()
	require.NoError(c.t, c.ws.WriteMessage(websocket.TextMessage, []byte(text)))
	answer, err := c.answer(7)
	require.NoError(c.t, err)
	if outcome := answer.GetOutcome(); outcome != nil {
		return outcome.GetError()
	}
	return answer.GetError()
}

// unchanged does something while ann's conversation must stay as it is.
func (s *target) unchanged(do func(eve *client)) {
	s.Helper()
	before := s.honest.say()
	eve := s.connect("eve")
	do(eve)
	require.Equal(s, before+1, s.honest.say(), "somebody else wrote to the conversation")
	s.during()
	eve.leave()
}

func foreign(s *target) {
	s.unchanged(func(eve *client) {
		for _, ask := range asks {
			answers := map[string]bool{}
			for _, id := range []string{s.honest.room, string(conversation.GroupID("nobody", "never"))} {
				refused := eve.tell(fmt.Sprintf(ask, id))
				require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, refused.GetCode(), ask)
				answers[refused.GetMessage()] = true
			}
			require.Len(s, answers, 1, "whether a conversation exists can be found out by %s", ask)
		}
	})
}

func nonsense(s *target) {
	s.unchanged(func(eve *client) {
		for _, ask := range asks {
			for _, id := range subjects {
				quoted := strings.NewReplacer("\n", `\n`, "\x00", `\u0000`, "'", `'`).Replace(id)
				refused := eve.tell(strings.Replace(ask, "%q", `"`+quoted+`"`, 1))
				require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.GetCode(), "%s %.40q", ask, id)
				require.Contains(s, refused.GetField(), "conversation_id")
			}
		}
	})
}

func forged(s *target) {
	s.unchanged(func(eve *client) {
		for _, extra := range []string{`"sender":"ann"`, `"seq":"1"`, `"timeMs":"1"`, `"hash":"AAAA"`, `"sender":"@server"`} {
			refused := eve.tell(`{"id":"7","submit":{"conversationId":"` + s.honest.room + `","commandId":"` + command + `",` + extra + `,"body":{"message":{"text":"forged"}}}}`)
			require.NotNil(s, refused, extra)
		}
	})
}

func devices(s *target) {
	for _, name := range subjects {
		conn, replies := s.stranger()
		quoted := strings.NewReplacer("\n", `\n`, "\x00", `\u0000`).Replace(name)
		frame := `{"id":"1","connect":{"token":"` + token(s, "eve") + `","deviceId":"` + quoted + `"}}`
		_, err := conn.Write([]byte(masked(frame)))
		require.NoError(s, err)
		require.Equal(s, errcode.CloseProtocol, closing(s, conn, replies), "%.40q", name)
		_ = conn.Close()
	}
	s.during()
	require.NotContains(s, s.log.String(), "DROP TABLE")
}
