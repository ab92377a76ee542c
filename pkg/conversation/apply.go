package conversation

import (
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"
)

// Result is the result of an accepted command.
type Result struct {
	// State is the state after the event.
	State *State
	// Event is the event to be committed.
	Event *conversationv1.Event
	// Effects are the changes of other rows; the caller sets Effect.event.
	Effects []*historyv1.Effect
}

// Apply carries out one command on a conversation. body is the command's decoded body; facts contain the messages that
// Needs returns; timeMs is the stream's time of the command. It returns either a result or a refusal. It is deterministic
// and total: every command of a kind that this build knows has an answer. A command of a newer kind must not be applied;
// see TooNew.
func Apply(state *State, facts *Facts, command *brokerv1.Command, body *conversationv1.Body, timeMs int64) (Result, *conversationv1.Error) {
	if state == nil {
		state = &State{}
	}
	judgement := &struct { // one allocation for the request and the occurrence
		request
		occurrence
	}{request: request{
		state: state, facts: facts, sender: ids.User(command.GetSender()), body: body,
		id: ids.Conversation(command.GetConversationId()), commandID: ids.Command(command.GetCommandId()), timeMs: timeMs,
	}}
	r, o := &judgement.request, &judgement.occurrence
	if refusal := r.judge(len(command.GetSalt())); refusal != nil {
		return Result{State: state}, refusal
	}
	rules := rowOf(KindOf(body)).rules
	prev := state.HeadHash
	if state.Head == 0 {
		prev = chain.Zero
	}
	event := &conversationv1.Event{
		ConversationId: command.GetConversationId(),
		Seq:            uint64(state.Head + 1),
		TimeMs:         timeMs,
		Sender:         command.GetSender(),
		CommandId:      command.GetCommandId(),
		Kind:           KindOf(body),
		Body:           command.GetBody(),
		Salt:           command.GetSalt(),
		PrevHash:       prev,
	}
	o.event, o.body, o.targets, o.facts = event, body, noTargets, facts
	if targets := rules.targets(r); targets != nil {
		o.targets = targets
		event.HeaderExtra = encode(targets)
	}
	chain.Seal(event)
	return Result{State: fold(state, o), Event: event, Effects: rules.effects(state, o)}, nil
}

// Replay returns the state after a committed event, and the effects of the event, for a rebuild of the views. facts
// contain only the view rows of the messages in the event's targets.
func Replay(state *State, facts *Facts, event *conversationv1.Event) (*State, []*historyv1.Effect) {
	if state == nil {
		state = &State{}
	}
	o := open(event, facts)
	return fold(state, o), rowOf(event.GetKind()).rules.effects(state, o)
}

// TooNew reports whether this build cannot decide a command, because the command's level or kind is newer. kind is
// KindOfBytes of the command's body. Such a command is never refused or dropped, and never becomes a dead letter: the
// partition is handed over to a newer worker, or stops with an alarm.
func TooNew(command *brokerv1.Command, kind conversationv1.EventKind) bool {
	return Level(command.GetLevel()) > MaxLevel() || (kind != 0 && rowOf(kind) == nil)
}

// IsErasure reports whether a body erases content. Such a command must be the last one of its batch, because only the
// store knows which events it erases.
func IsErasure(body *conversationv1.Body) bool { return body.GetErase() != nil }

// judge decides whether the command is allowed in this state.
func (r *request) judge(saltSize int) *conversationv1.Error {
	if (!ValidUser(string(r.sender)) && r.sender != ServerUser) || !ValidCommandID(string(r.commandID)) || !ValidID(string(r.id)) ||
		saltSize < chain.MinSaltSize || saltSize > chain.MaxSaltSize {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "", "the command's ids or salt are malformed")
	}
	if err := Validate(r.sender, r.body); err != nil {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body."+err.Field, err.Rule)
	}
	kind := rowOf(KindOf(r.body))
	r.role = r.state.roleOf(r.sender)
	if refusal := r.permitted(kind); refusal != nil {
		return refusal
	}
	return kind.rules.check(r)
}

// permitted checks the sender's role and the kind of the conversation against the table.
func (r *request) permitted(kind *row) *conversationv1.Error {
	switch {
	case r.role == RoleNone && !kind.roles.Has(RoleNone), r.role == RoleServer && r.state.Head == 0:
		// "Does not exist" and "not yours" have the same answer, so that ids cannot be probed.
		return refuse(conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "conversation_id", "no such conversation, or you are not a member of it")
	case !kind.inDirect && r.state.Kind == conversationv1.Kind_KIND_DIRECT:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body", "is not possible in a direct conversation: it has the same two members and no name for as long as it exists")
	case !kind.roles.Has(r.role):
		return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body", "your role in this conversation does not allow it")
	}
	return nil
}

func refuse(code conversationv1.ErrorCode, field, message string) *conversationv1.Error {
	return &conversationv1.Error{Code: code, Field: field, Message: message}
}
