package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// renameKind renames a group. When the event is erased, the name that it set becomes empty.
type renameKind struct{ none }

func (renameKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	if body.GetRename().GetName() == "" {
		return invalid("rename.name", "must not be empty")
	}
	return validateName("rename.name", body.GetRename().GetName())
}

func (renameKind) fold(next *State, o *occurrence) {
	next.Name = o.body.GetRename().GetName()
	next.NameSource = NameSource{ids.Seq(o.event.GetSeq()), ids.User(o.event.GetSender()), o.event.GetTimeMs()}
}

func (renameKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return []*historyv1.Effect{setName(o.body.GetRename().GetName(), NameSource{ids.Seq(o.event.GetSeq()), ids.User(o.event.GetSender()), o.event.GetTimeMs()})}
}

var _ rules = renameKind{}
