// Package commands makes the commands that enter a stream. Only this package validates the requests of users and services
// in the strictest form and encodes them. Workers and the store are more lenient, so that an older worker or store does
// not refuse a command that a newer gateway admits. The package never decides permission or order.
package commands

import (
	"fmt"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
)

// Request is the input of a command.
type Request struct {
	// Sender is the authenticated user, or conversation.ServerUser.
	Sender ids.User
	// ConversationID is empty for a create, because the id is computed from the command.
	ConversationID ids.Conversation
	CommandID      ids.Command
	// Attempt is how often the caller has received a refusal of this command.
	Attempt uint32
	Body    *conversationv1.Body
}

// Make returns the command of a request, with a new salt, or the reason for refusing it. Such a refusal says nothing
// about earlier copies of the command. level is the installation's level. The error names a field as in Request, in the
// style of the proto files.
func Make(request Request, level conversation.Level) (*brokerv1.Command, *conversationv1.Error) {
	body, needed := request.Body, conversation.LevelOf(request.Body)
	if needed != 0 {
		needed = max(needed, conversation.LevelOfUsers(string(request.Sender)))
	}
	switch {
	case !conversation.AdmissibleCommandID(string(request.CommandID)):
		return nil, invalid("command_id", "must be a UUIDv7 in canonical lower-case form")
	case request.Attempt > protocol.MaxAttempt:
		return nil, invalid("attempt", fmt.Sprintf("must be at most %d; choose a new command id", protocol.MaxAttempt))
	case needed != 0 && !conversation.MayAsk(body) && request.Sender != conversation.ServerUser:
		return nil, &conversationv1.Error{
			Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, Field: "body", Message: "only internal services may ask for this",
		}
	}
	if err := conversation.Validate(request.Sender, body); err != nil {
		return nil, invalid(bodyField(err.Field), err.Rule)
	}
	if needed > level {
		return nil, invalid("body", fmt.Sprintf(
			"needs protocol level %d, and this installation is at level %d: an operator must raise the installation's level first", needed, level))
	}
	conversationID := request.ConversationID
	switch create := body.GetCreate(); {
	case create != nil && conversationID != "":
		return nil, invalid("conversation_id", "must be empty for create: the id follows from the command")
	case create != nil:
		conversationID = conversation.CreateID(request.Sender, request.CommandID, create)
	case request.Sender == conversation.ServerUser && conversation.ValidID(string(conversationID)):
		// An operator may name a conversation that a newer build created.
	case !conversation.AdmissibleID(string(conversationID)):
		return nil, invalid("conversation_id", "is not a conversation id")
	}
	encoded, err := conversation.EncodeBody(body)
	if err != nil {
		return nil, invalid("body", "cannot be encoded")
	}
	return &brokerv1.Command{
		ConversationId: string(conversationID), Sender: string(request.Sender), CommandId: string(request.CommandID), Body: encoded,
		Salt: chain.NewSalt(), Attempt: request.Attempt, Level: uint32(needed),
	}, nil
}

// Again makes a new copy of a command that became a dead letter. The copy has a new salt, which distinguishes its answer
// from the first copy's answer. It has the next attempt, so that the first copy's refusal does not apply. The bytes of
// the body are unchanged. It returns false if the ids are malformed.
func Again(copied *brokerv1.Command) (*brokerv1.Command, bool) {
	if !conversation.ValidID(copied.GetConversationId()) || !conversation.ValidSender(copied.GetSender()) || !conversation.ValidCommandID(copied.GetCommandId()) {
		return nil, false
	}
	return &brokerv1.Command{
		ConversationId: copied.GetConversationId(), Sender: copied.GetSender(), CommandId: copied.GetCommandId(),
		Body: copied.GetBody(), Salt: chain.NewSalt(), Attempt: copied.GetAttempt() + 1, Level: copied.GetLevel(),
	}, true
}

func invalid(field, message string) *conversationv1.Error {
	return &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_INVALID, Field: field, Message: message}
}

func bodyField(field string) string {
	if field == "" {
		return "body"
	}
	return "body." + field
}
