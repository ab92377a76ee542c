package conversation

import (
	"maps"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// removeMemberKind removes another member from a group.
type removeMemberKind struct{ none }

func (removeMemberKind) levelOf(body *conversationv1.Body) Level {
	return LevelOfUsers(body.GetRemoveMember().GetMember())
}

func (removeMemberKind) validate(sender UserID, body *conversationv1.Body) *FieldError {
	switch member := body.GetRemoveMember().GetMember(); {
	case !ValidUser(member):
		return invalid("remove_member.member", "%s", UserRule)
	case member == sender:
		return invalid("remove_member.member", "is the sender; use leave")
	}
	return nil
}

func (removeMemberKind) check(r *request) *conversationv1.Error {
	if _, member := r.state.Members[r.body.GetRemoveMember().GetMember()]; !member {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.remove_member.member", "is not a member")
	}
	return nil
}

func (removeMemberKind) fold(next *State, o *occurrence) {
	next.Members = maps.Clone(next.Members)
	delete(next.Members, o.body.GetRemoveMember().GetMember())
}

func (removeMemberKind) members(o *occurrence) (joined []UserID, left UserID) {
	return nil, o.body.GetRemoveMember().GetMember()
}

func (removeMemberKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{end(o.body.GetRemoveMember().GetMember())}
}
