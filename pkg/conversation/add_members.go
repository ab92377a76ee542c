package conversation

import (
	"maps"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// addMembersKind adds users to a group.
type addMembersKind struct{ none }

func (addMembersKind) levelOf(body *conversationv1.Body) Level {
	return LevelOfUsers(body.GetAddMembers().GetMembers()...)
}

func (addMembersKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	return validateMembers("add_members.members", body.GetAddMembers().GetMembers(), 1, protocol.MaxMembersPerAdd)
}

func (addMembersKind) check(r *request) *conversationv1.Error {
	added := r.body.GetAddMembers().GetMembers()
	for _, member := range added {
		if _, already := r.state.Members[ids.User(member)]; already {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.add_members.members", "one of them is a member already")
		}
	}
	for _, member := range added {
		if _, removed := r.state.Removed[ids.User(member)]; removed && r.role != RoleOwner {
			return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body.add_members.members", "one of them was removed; only the owner of the group may add them again")
		}
	}
	if len(r.state.Members)+len(added) > protocol.MaxMembers {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_LIMIT, "body.add_members.members", "the group would have too many members")
	}
	return nil
}

func (addMembersKind) fold(next *State, o *occurrence) {
	next.Members = maps.Clone(next.Members)
	if next.Members == nil {
		next.Members = map[ids.User]ids.Seq{}
	}
	for _, member := range o.body.GetAddMembers().GetMembers() {
		next.Members[ids.User(member)] = ids.Seq(o.event.GetSeq())
	}
	next.admit(o.body.GetAddMembers().GetMembers())
}

func (addMembersKind) members(o *occurrence) (joined []string, left ids.User) {
	return o.body.GetAddMembers().GetMembers(), ""
}

func (addMembersKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{begin(o.body.GetAddMembers().GetMembers())}
}
