package conversation

import (
	"maps"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/chain"
)

// State is all that apply knows of a conversation. A State is never changed: apply makes a new one, so a batch that is
// not committed is dropped by forgetting it. The zero value (or nil) is a conversation that does not exist.
type State struct {
	Kind    conversationv1.Kind
	Name    string
	Creator string
	Head    uint64
	// HeadHash is the hash of the event at Head, nil when Head is 0.
	HeadHash []byte
	// Members maps each present member to the seq of the event that made them one. Shared between States; never written to.
	Members map[string]uint64
}

// Owner is the member who may remove others: the creator, or when they left, whoever has been a member longest (ties go
// to the lower user id). Empty when there are no members. It follows from the state, so no command has to hand it on.
func (s *State) Owner() string {
	if _, stayed := s.Members[s.Creator]; stayed {
		return s.Creator
	}
	var owner string
	var since uint64
	for member, joined := range s.Members {
		if owner == "" || joined < since || (joined == since && member < owner) {
			owner, since = member, joined
		}
	}
	return owner
}

// Apply carries out one command on a conversation. timeMs is the stream's time of the command. It returns either the
// next state and the event that leads to it, or the same state and a refusal. It is deterministic, and total: every
// command that can be decoded has an answer.
func Apply(state *State, command *brokerv1.Command, timeMs int64) (*State, *conversationv1.Event, *conversationv1.Error) {
	if state == nil {
		state = &State{}
	}
	if refusal := check(state, command); refusal != nil {
		return state, nil, refusal
	}
	prev := state.HeadHash
	if state.Head == 0 {
		prev = chain.Zero
	}
	event := &conversationv1.Event{
		ConversationId: command.GetConversationId(),
		Seq:            state.Head + 1,
		TimeMs:         timeMs,
		Sender:         command.GetSender(),
		CommandId:      command.GetCommandId(),
		Kind:           chain.KindOf(command.GetBody()),
		Body:           command.GetBody(),
		Salt:           command.GetSalt(),
		PrevHash:       prev,
	}
	hash := chain.Hash(event)
	event.Hash = hash[:]
	return Fold(state, event), event, nil
}

// Fold is the state after a committed event. The event's body must not have been erased if it changed members or names.
func Fold(state *State, event *conversationv1.Event) *State {
	next := *state
	next.Head, next.HeadHash = event.GetSeq(), event.GetHash()
	switch action := event.GetBody().GetAction().(type) {
	case *conversationv1.Body_Create:
		next.Kind, next.Name, next.Creator = action.Create.GetKind(), action.Create.GetName(), event.GetSender()
		next.Members = make(map[string]uint64, len(action.Create.GetMembers())+1)
		next.Members[event.GetSender()] = event.GetSeq()
		for _, member := range action.Create.GetMembers() {
			next.Members[member] = event.GetSeq()
		}
	case *conversationv1.Body_AddMembers:
		next.Members = maps.Clone(state.Members)
		if next.Members == nil {
			next.Members = map[string]uint64{}
		}
		for _, member := range action.AddMembers.GetMembers() {
			next.Members[member] = event.GetSeq()
		}
	case *conversationv1.Body_RemoveMember:
		next.Members = maps.Clone(state.Members)
		delete(next.Members, action.RemoveMember.GetMember())
	case *conversationv1.Body_Leave:
		next.Members = maps.Clone(state.Members)
		delete(next.Members, event.GetSender())
	case *conversationv1.Body_Rename:
		next.Name = action.Rename.GetName()
	}
	return &next
}

// Joiners names the users whose membership an event begins; empty for most events.
func Joiners(event *conversationv1.Event) []string {
	switch action := event.GetBody().GetAction().(type) {
	case *conversationv1.Body_Create:
		return append([]string{event.GetSender()}, action.Create.GetMembers()...)
	case *conversationv1.Body_AddMembers:
		return action.AddMembers.GetMembers()
	}
	return nil
}

// Leaver names the user whose membership an event ends; empty for most events.
func Leaver(event *conversationv1.Event) string {
	switch action := event.GetBody().GetAction().(type) {
	case *conversationv1.Body_RemoveMember:
		return action.RemoveMember.GetMember()
	case *conversationv1.Body_Leave:
		return event.GetSender()
	}
	return ""
}

func refuse(code conversationv1.ErrorCode, field, message string) *conversationv1.Error {
	return &conversationv1.Error{Code: code, Field: field, Message: message}
}

// check decides whether the command is allowed in this state.
func check(state *State, command *brokerv1.Command) *conversationv1.Error {
	sender, body := command.GetSender(), command.GetBody()
	if !ValidUser(sender) || !ValidCommandID(command.GetCommandId()) || !ValidID(command.GetConversationId()) || len(command.GetSalt()) != chain.SaltSize {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "", "the command's ids or salt are malformed")
	}
	if err := Validate(sender, body); err != nil {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body."+err.Field, err.Rule)
	}
	if create := body.GetCreate(); create != nil {
		return checkCreate(state, command, create)
	}
	if _, member := state.Members[sender]; !member {
		// One answer for "does not exist" and "not yours", so that ids cannot be probed.
		return refuse(conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "conversation_id", "no such conversation, or you are not a member of it")
	}
	if message := body.GetMessage(); message != nil {
		if message.GetReplyTo() > state.Head {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body.message.reply_to", "names an event that does not exist yet")
		}
		return nil
	}
	if state.Kind == conversationv1.Kind_KIND_DIRECT {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body", "a direct conversation has the same two members and no name for as long as it exists")
	}
	switch action := body.GetAction().(type) {
	case *conversationv1.Body_AddMembers:
		return checkAdd(state, action.AddMembers)
	case *conversationv1.Body_RemoveMember:
		if sender != state.Owner() {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body.remove_member", "only the group's owner may remove members")
		}
		if _, member := state.Members[action.RemoveMember.GetMember()]; !member {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.remove_member.member", "is not a member")
		}
	}
	return nil
}

func checkCreate(state *State, command *brokerv1.Command, create *conversationv1.Create) *conversationv1.Error {
	switch {
	case command.GetConversationId() != CreateID(command.GetSender(), command.GetCommandId(), create):
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "conversation_id", "does not follow from the create command")
	case state.Head > 0:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "conversation_id", "the conversation exists already")
	}
	return nil
}

func checkAdd(state *State, add *conversationv1.AddMembers) *conversationv1.Error {
	for _, member := range add.GetMembers() {
		if _, already := state.Members[member]; already {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.add_members.members", "one of them is a member already")
		}
	}
	if len(state.Members)+len(add.GetMembers()) > MaxMembers {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_LIMIT, "body.add_members.members", "the group would have too many members")
	}
	return nil
}

// Conflicts reports whether a repeated command asks for something else than its first outcome did. The salt of the first
// event makes the comparison exact without a second copy of the body; once the body is erased nothing can conflict.
func Conflicts(first *conversationv1.Event, body *conversationv1.Body) bool {
	if first.GetBody() == nil {
		return false
	}
	return chain.Commitment(first.GetSalt(), body) != chain.Commitment(first.GetSalt(), first.GetBody())
}
