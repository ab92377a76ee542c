package delivery

import (
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// verdict is what becomes of one command. Exactly one of event, refusal, dead and late is set.
type verdict struct {
	event    *conversationv1.Event
	repeated bool // event was there before this command
	refusal  *conversationv1.Error
	// remembered says that the refusal is that of an earlier copy.
	remembered bool
	dead       string // why the command is put aside
	unfit      bool   // dead, and no command of this partition
	late       bool   // too late to be carried out
	// unremembered says that there was no room to remember the refusal, or that it was put aside: neither is answered.
	unremembered bool
}

// repeat answers a command with the outcome that its first copy had. With an erased body nothing can conflict.
func (v *verdict) repeat(first *conversationv1.Event, command *brokerv1.Command, erased bool) {
	if !erased && conversation.Conflicts(first, command) {
		v.refusal = &conversationv1.Error{
			Code:    conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT,
			Field:   "command_id",
			Message: "the command id was used before with another body; choose a new id for a new command",
		}
		return
	}
	v.event, v.repeated = first, true
}

var (
	errDeadLettered = &conversationv1.Error{
		Code:    conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED,
		Message: "the command could not be carried out and was put aside for an operator",
	}
	errUnknown = &conversationv1.Error{
		Code:         conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE,
		Message:      "it is not known yet whether this was done; send it again with the same command id",
		RetryAfterMs: 1000,
	}
)

// err is what the sender is told of a command without an event.
func (v *verdict) err() *conversationv1.Error {
	switch {
	case v.late, v.unremembered:
		return errUnknown
	case v.refusal != nil:
		return v.refusal
	default:
		return errDeadLettered
	}
}

// outcome is the verdict in the words of the protocol.
func (v *verdict) outcome(command *brokerv1.Command) *conversationv1.Outcome {
	outcome := &conversationv1.Outcome{ConversationId: command.GetConversationId(), CommandId: command.GetCommandId()}
	if v.event != nil {
		outcome.Seq, outcome.TimeMs, outcome.Repeated = v.event.GetSeq(), v.event.GetTimeMs(), v.repeated
	} else {
		outcome.Error = v.err()
	}
	return outcome
}
