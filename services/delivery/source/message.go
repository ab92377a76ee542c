package source

import (
	"time"

	"github.com/nats-io/nats.go"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Message is one message of a partition's stream. It is decoded once, where it is read.
type Message struct {
	Sequence ids.Sequence
	TimeNs   int64 // the broker's time
	// Command is nil when the payload cannot be decoded.
	Command *brokerv1.Command
	// Body is the command's body. It is empty if the body cannot be decoded or does not have exactly one action; then the
	// command is refused.
	Body *conversationv1.Body
	// Needs are the messages that the command refers to; nil for most commands.
	Needs   []conversation.Need
	Payload []byte
	// Traceparent is the W3C trace context in the message's header; empty for most messages.
	Traceparent string
	// TooNew means that this build cannot decide the command.
	TooNew bool
	// Overstated means that the command claims a level above the installation's.
	Overstated bool
	// Forged means that the command claims to come from an internal service, but was published on the subject for users'
	// commands.
	Forged bool
}

// noBody is the body of commands whose body cannot be decoded.
var noBody = &conversationv1.Body{}

// FromStream decodes a message with its subject and headers.
func FromStream(sequence ids.Sequence, subject string, at time.Time, header nats.Header, payload []byte) Message {
	e := Decode(sequence, at.UnixNano(), payload)
	e.Forged = ids.User(e.Command.GetSender()) == conversation.ServerUser && !broker.IsServerSubject(subject)
	e.Traceparent = traceparentOf(header)
	return e
}

// Decode decodes a message without headers. If the payload is not a command, Decode also returns a message: it becomes a
// dead letter when its turn comes.
func Decode(sequence ids.Sequence, timeNs int64, payload []byte) Message {
	e := Message{Sequence: sequence, TimeNs: timeNs, Payload: payload, Body: noBody}
	// One allocation for both values, which live equally long.
	decoded := new(struct {
		command brokerv1.Command
		body    conversationv1.Body
	})
	command, body := &decoded.command, &decoded.body
	if len(payload) == 0 || command.UnmarshalVT(payload) != nil {
		return e
	}
	e.Command = command
	kind := conversation.KindOfBytes(command.GetBody())
	if e.TooNew = conversation.TooNew(command, kind); e.TooNew || kind == 0 {
		return e
	}
	if bugUnknownFieldsDropped {
		command.Body = dropUnknown(command.GetBody())
	}
	if body.UnmarshalVT(command.GetBody()) == nil {
		e.Body = body
		e.Needs = conversation.Needs(ids.User(command.GetSender()), body)
	}
	return e
}

// TimeMs returns the stream's time of the message, in Unix milliseconds.
func (e *Message) TimeMs() int64 { return e.TimeNs / 1e6 }

// Skew returns how much later than its admission the command entered the stream; 0 if it has no admission time.
func (e *Message) Skew() time.Duration {
	if e.Command.GetAdmittedMs() == 0 {
		return 0
	}
	return time.Duration(e.TimeMs()-e.Command.GetAdmittedMs()) * time.Millisecond
}

// Late reports whether the command must no longer be carried out, because its gateway no longer waits for the outcome.
func (e *Message) Late() bool {
	return e.Command.GetNotAfterMs() != 0 && e.TimeMs() > e.Command.GetNotAfterMs()
}

// CommandKey identifies a command for as long as its conversation lives.
type CommandKey struct {
	Conversation ids.Conversation
	Sender       ids.User
	Command      ids.Command
}

// KeyOf returns the key of a command.
func KeyOf(command *brokerv1.Command) CommandKey {
	return CommandKey{ids.Conversation(command.GetConversationId()), ids.User(command.GetSender()), ids.Command(command.GetCommandId())}
}

// KeyOfEvent returns the key of the command that made an event.
func KeyOfEvent(event *conversationv1.Event) CommandKey {
	return CommandKey{ids.Conversation(event.GetConversationId()), ids.User(event.GetSender()), ids.Command(event.GetCommandId())}
}

// KeyOfProto returns the key in a message of the store.
func KeyOfProto(key *historyv1.CommandKey) CommandKey {
	return CommandKey{ids.Conversation(key.GetConversationId()), ids.User(key.GetSender()), ids.Command(key.GetCommandId())}
}

// Committable reports whether a command with this key can have been committed; the store refuses queries for other keys.
func (k CommandKey) Committable() bool {
	return conversation.ValidID(string(k.Conversation)) && conversation.ValidSender(string(k.Sender)) && conversation.ValidCommandID(string(k.Command))
}

// Proto returns the key in the store's form.
func (k CommandKey) Proto() *historyv1.CommandKey {
	return &historyv1.CommandKey{ConversationId: string(k.Conversation), Sender: string(k.Sender), CommandId: string(k.Command)}
}

const (
	headerTraceparent = "traceparent"
	// traceparentSize is the length of a W3C trace context of version 00.
	traceparentSize = 55
)

// traceparentOf returns the trace context of a message, empty for none. HTTP-style carriers spell the key with a capital.
func traceparentOf(header nats.Header) string {
	for _, key := range [...]string{headerTraceparent, "Traceparent"} {
		if values := header[key]; len(values) > 0 && len(values[0]) == traceparentSize {
			return values[0]
		}
	}
	return ""
}
