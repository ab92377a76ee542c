package conversation

import (
	"maps"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// removeMemberKind removes another member from a group. Only the owner may add that user again.
type removeMemberKind struct{ none }

func (removeMemberKind) levelOf(body *conversationv1.Body) Level {
	return LevelOfUsers(body.GetRemoveMember().GetMember())
}

func (removeMemberKind) validate(sender ids.User, body *conversationv1.Body) *FieldError {
	switch member := ids.User(body.GetRemoveMember().GetMember()); {
	case !ValidUser(string(member)):
		return invalid("remove_member.member", "%s", UserRule)
	case member == sender:
		return invalid("remove_member.member", "is the sender; use leave")
	}
	return nil
}

func (removeMemberKind) check(r *request) *conversationv1.Error {
	if _, member := r.state.Members[ids.User(r.body.GetRemoveMember().GetMember())]; !member {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.remove_member.member", "is not a member")
	}
	return nil
}

func (removeMemberKind) fold(next *State, o *occurrence) {
	next.Members = maps.Clone(next.Members)
	delete(next.Members, ids.User(o.body.GetRemoveMember().GetMember()))
	next.remove(ids.User(o.body.GetRemoveMember().GetMember()), ids.Seq(o.event.GetSeq()))
}

func (removeMemberKind) members(o *occurrence) (joined []string, left ids.User) {
	return nil, ids.User(o.body.GetRemoveMember().GetMember())
}

func (removeMemberKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{end(ids.User(o.body.GetRemoveMember().GetMember()))}
}
