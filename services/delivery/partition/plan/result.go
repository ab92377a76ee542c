package plan

import (
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// Result is the result of one command. Exactly one of event, refusal, dead and late is set.
type Result struct {
	Event    *conversationv1.Event
	Repeated bool // the event was committed before this command
	Refusal  *conversationv1.Error
	// Remembered means that the refusal is the one of an earlier copy.
	Remembered bool
	DeadReason string // the reason why the command becomes a dead letter
	Misplaced  bool   // a dead letter for a message that is not a command of this partition
	Late       bool   // the command came too late to be carried out
	// Unremembered means that there was no room to remember the refusal or the dead letter. Then the command is answered
	// with ErrUnknown.
	Unremembered bool
}

// SetRepeated answers a command with the outcome of its first copy. If the first body is erased, there is no conflict.
func (v *Result) SetRepeated(first *conversationv1.Event, command *brokerv1.Command, erased bool) {
	if !erased && conversation.Conflicts(first, command) {
		v.Refusal = &conversationv1.Error{
			Code:    conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT,
			Field:   "command_id",
			Message: "the command id was used before with another body; choose a new id for a new command",
		}
		return
	}
	v.Event, v.Repeated = first, true
}

var (
	// ErrDeadLettered is the answer to a command that became a dead letter.
	ErrDeadLettered = &conversationv1.Error{
		Code:    conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED,
		Message: "the command could not be carried out and is kept for an operator as a dead letter",
	}
	// ErrUnknown is the answer while the outcome is not known.
	ErrUnknown = &conversationv1.Error{
		Code:         conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE,
		Message:      "it is not known yet whether this was done; send it again with the same command id",
		RetryAfterMs: 1000,
	}
)

// Err is the error that the sender of a command without an event receives.
func (v *Result) Err() *conversationv1.Error {
	switch {
	case v.Late, v.Unremembered:
		return ErrUnknown
	case v.Refusal != nil:
		return v.Refusal
	default:
		return ErrDeadLettered
	}
}

// Outcome returns the result as a message of the protocol.
func (v *Result) Outcome(command *brokerv1.Command) *conversationv1.Outcome {
	outcome := &conversationv1.Outcome{ConversationId: command.GetConversationId(), CommandId: command.GetCommandId()}
	if v.Event != nil {
		outcome.Seq, outcome.TimeMs, outcome.Repeated = v.Event.GetSeq(), v.Event.GetTimeMs(), v.Repeated
	} else {
		outcome.Error = v.Err()
	}
	return outcome
}
