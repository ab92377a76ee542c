package delivery

import (
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// entry is one message of a partition's stream. It is decoded once, where it is read.
type entry struct {
	sequence uint64
	timeNs   int64 // the broker's
	// command is nil when the payload cannot be decoded.
	command *brokerv1.Command
	// body is the command's body; empty when it cannot be decoded or has no action, or more than one: it is refused then.
	body *conversationv1.Body
	// needs are the messages that the command refers to; nil for most.
	needs   []conversation.Need
	payload []byte
	// traceparent is the W3C trace context the message came with; empty for most.
	traceparent string
	// tooNew says that this build cannot judge the command.
	tooNew bool
	// overstated says that the command claims to be newer than the installation.
	overstated bool
}

// noBody is the body of commands whose own cannot be decoded.
var noBody = &conversationv1.Body{}

// decode makes an entry of a message. A payload that is no command is an entry too: it is put aside in its turn.
func decode(sequence uint64, timeNs int64, payload []byte) entry {
	e := entry{sequence: sequence, timeNs: timeNs, payload: payload, body: noBody}
	// One allocation for both; they live equally long.
	decoded := new(struct {
		command brokerv1.Command
		body    conversationv1.Body
	})
	command, body := &decoded.command, &decoded.body
	if len(payload) == 0 || command.UnmarshalVT(payload) != nil {
		return e
	}
	e.command = command
	kind := conversation.KindOfBytes(command.GetBody())
	if e.tooNew = conversation.TooNew(command, kind); e.tooNew || kind == 0 {
		return e
	}
	if bugUnknownFieldsDropped {
		command.Body = dropUnknown(command.GetBody())
	}
	if body.UnmarshalVT(command.GetBody()) == nil {
		e.body = body
		e.needs = conversation.Needs(command.GetSender(), body)
	}
	return e
}

// timeMs is the stream's time of the message, Unix time in milliseconds.
func (e *entry) timeMs() int64 { return e.timeNs / 1e6 }

// late reports whether the command may no longer be carried out: its gateway has given it up by then.
func (e *entry) late() bool {
	return e.command.GetNotAfterMs() != 0 && e.timeMs() > e.command.GetNotAfterMs()
}

// commandKey identifies a command for as long as its conversation lives.
type commandKey struct{ conversation, sender, command string }

func keyOf(command *brokerv1.Command) commandKey {
	return commandKey{command.GetConversationId(), command.GetSender(), command.GetCommandId()}
}

func keyOfEvent(event *conversationv1.Event) commandKey {
	return commandKey{event.GetConversationId(), event.GetSender(), event.GetCommandId()}
}

func keyOfProto(key *historyv1.CommandKey) commandKey {
	return commandKey{key.GetConversationId(), key.GetSender(), key.GetCommandId()}
}

// committable reports whether a command with this key can have been committed; the store refuses to look for others.
func (k commandKey) committable() bool {
	return conversation.ValidID(k.conversation) && conversation.ValidSender(k.sender) && conversation.ValidCommandID(k.command)
}

func (k commandKey) proto() *historyv1.CommandKey {
	return &historyv1.CommandKey{ConversationId: k.conversation, Sender: k.sender, CommandId: k.command}
}
