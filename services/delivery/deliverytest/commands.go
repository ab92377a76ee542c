package deliverytest

import (
	"fmt"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// CommandID returns a valid command id for a number.
func CommandID(n int) string { return fmt.Sprintf("01890000-0000-7000-8000-%012x", n) }

// Text returns the body of a message.
func Text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

// Group returns the body that creates a group.
func Group(name string, members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: name, Members: members,
	}}}
}

// Command returns an admitted command. If id is empty, the conversation is the one that the body creates.
func Command(id, sender string, n int, body *conversationv1.Body) *brokerv1.Command {
	if id == "" {
		id = string(conversation.CreateID(ids.User(sender), ids.Command(CommandID(n)), body.GetCreate()))
	}
	salt := make([]byte, chain.SaltSize)
	salt[0], salt[1] = byte(n), byte(n>>8)
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		panic(err) //nolint:forbidigo // a mistake in a test
	}
	return &brokerv1.Command{
		ConversationId: id, Sender: sender, CommandId: CommandID(n), Body: encoded, Salt: salt, Inbox: "inbox",
		Level: uint32(conversation.LevelOf(body)),
	}
}

// Decoded decodes the body of an event or command.
func Decoded(body []byte) *conversationv1.Body {
	b, err := conversation.DecodeBody(body)
	if err != nil {
		panic(err) //nolint:forbidigo // a mistake in a test
	}
	return b
}

// Messages returns commands as messages of a stream, from sequence 1 on.
func Messages(t rapid.TB, commands ...*brokerv1.Command) []source.Message {
	list := make([]source.Message, len(commands))
	for i, c := range commands {
		payload, err := c.MarshalVT()
		require.NoError(t, err)
		list[i] = source.Decode(ids.Sequence(i+1), int64(i+1)*1e6, payload)
	}
	return list
}
