package attack_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/terminal"
	"github.com/runnelhq/runnel/pkg/terminal/terminaltest"
	"github.com/runnelhq/runnel/services/standalone"
)

// controls are characters that no text may have. shown are texts that are kept as they are: showing them is up to the reader.
var (
	controls = []rune{0, '\a', '\b', '\v', '\f', 0x1b, 0x7f, 0x80, 0x85, 0x9b, 0x9f}
	shown    = []string{
		"exe.\u202egnp", "\u2066a", "\u200b\ufeff", "a\u2028" + terminaltest.ForgedLine, "x\n" + terminaltest.ForgedLine, "x\r\n" + terminaltest.ForgedLine,
		"Z" + strings.Repeat("\u0301", 1000),
	}
)

var texts = []attack{
	{
		name: "text that steers terminals", tries: "controls, ESC and C1 in messages, names of groups and reactions; marks of direction, forged lines and floods of combining characters in messages", seen: "INVALID, or kept unchanged and harmless after package terminal",
		bound: bound{sockets: 1, megabytes: 64, calls: 20}, settings: func(_ *testing.T, cfg *standalone.Config) {
			cfg.Gateway.CommandRatePerUser, cfg.Gateway.FrameRate = 1e6, 1e6
		}, run: steer,
	},
}

func steer(s *target) {
	eve := s.connect("eve")
	first := eve.say()
	for _, control := range controls {
		text := fmt.Sprintf("a%cb", control)
		message := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}
		create := &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: text, Members: []string{"bob"},
		}}}
		react := &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: first, Emoji: text}}}
		require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, eve.refusal(eve.room, message).GetCode(), "%q", text)
		require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, eve.refusal("", create).GetCode(), "%q", text)
		require.Equal(s, conversationv1.ErrorCode_ERROR_CODE_INVALID, eve.refusal(eve.room, react).GetCode(), "%q", text)
	}
	for _, text := range shown {
		require.Nil(s, eve.refusal(eve.room, &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: text}}}), "%q", text)
	}
	answer, err := eve.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Read{Read: &clientv1.Read{ConversationId: eve.room, After: first}}})
	require.NoError(s, err)
	var kept []string
	for _, event := range answer.GetPage().GetEvents() {
		text := event.GetBody().GetMessage().GetText()
		kept = append(kept, text)
		require.NoError(s, terminaltest.Check(string(terminal.Sprintf("eve: %s\n", text))))
		require.NoError(s, terminaltest.Check(terminal.Line(text)))
	}
	require.Equal(s, shown, kept)
	s.during()
	eve.leave()
}
