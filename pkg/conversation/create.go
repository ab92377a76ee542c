package conversation

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// createKind creates a conversation. The name is content; kind and members are in the header, so that they are kept when
// the body is erased. Targets: seqs[0] is the kind of the conversation, users are the members beside the sender.
type createKind struct{ none }

func (createKind) levelOf(body *conversationv1.Body) Level {
	return LevelOfUsers(body.GetCreate().GetMembers()...)
}

func (createKind) validate(sender ids.User, body *conversationv1.Body) *FieldError {
	create := body.GetCreate()
	least, most := 0, protocol.MaxMembers-1
	switch create.GetKind() {
	case conversationv1.Kind_KIND_DIRECT:
		least, most = 1, 1
		if create.GetName() != "" {
			return invalid("create.name", "must be empty for a direct conversation")
		}
	case conversationv1.Kind_KIND_GROUP:
		if err := validateName("create.name", create.GetName()); err != nil {
			return err
		}
	default:
		return invalid("create.kind", "must be KIND_DIRECT or KIND_GROUP")
	}
	if slices.Contains(create.GetMembers(), string(sender)) {
		return invalid("create.members", "must not name the sender, who is a member anyway")
	}
	return validateMembers("create.members", create.GetMembers(), least, most)
}

func (createKind) check(r *request) *conversationv1.Error {
	switch {
	case r.id != CreateID(r.sender, r.commandID, r.body.GetCreate()):
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "conversation_id", "does not follow from the create command")
	case r.state.Head > 0:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "conversation_id", "the conversation exists already")
	}
	return nil
}

func (createKind) targets(r *request) *conversationv1.Targets {
	create := r.body.GetCreate()
	return &conversationv1.Targets{Seqs: []uint64{uint64(create.GetKind())}, Users: create.GetMembers()}
}

func (k createKind) fold(next *State, o *occurrence) {
	next.Kind, next.Creator = kindOfCreated(o), ids.User(o.event.GetSender())
	next.Name = o.body.GetCreate().GetName()
	next.NameSource = NameSource{ids.Seq(o.event.GetSeq()), ids.User(o.event.GetSender()), o.event.GetTimeMs()}
	joined, _ := k.members(o)
	next.Members = make(map[ids.User]ids.Seq, len(joined))
	for _, member := range joined {
		next.Members[ids.User(member)] = ids.Seq(o.event.GetSeq())
	}
}

func (createKind) members(o *occurrence) (joined []string, left ids.User) {
	return append([]string{o.event.GetSender()}, o.targets.GetUsers()...), ""
}

func (k createKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	joined, _ := k.members(o)
	return []*historyv1.Effect{
		{Effect: &historyv1.Effect_CreateConversation{CreateConversation: &historyv1.CreateConversation{Kind: kindOfCreated(o)}}},
		setName(o.body.GetCreate().GetName(), NameSource{ids.Seq(o.event.GetSeq()), ids.User(o.event.GetSender()), o.event.GetTimeMs()}),
		begin(joined),
	}
}

func kindOfCreated(o *occurrence) conversationv1.Kind {
	if seqs := o.targets.GetSeqs(); len(seqs) > 0 {
		return conversationv1.Kind(seqs[0])
	}
	return conversationv1.Kind_KIND_UNSPECIFIED
}

func setName(name string, source NameSource) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_SetName{SetName: &historyv1.SetName{
		Name: name, Seq: uint64(source.Seq), Sender: string(source.Sender), TimeMs: source.TimeMs,
	}}}
}

func begin(users []string) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_BeginMemberships{BeginMemberships: &historyv1.BeginMemberships{UserIds: users}}}
}

func end(user ids.User) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_EndMembership{EndMembership: &historyv1.EndMembership{UserId: string(user)}}}
}
