package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// deleteKind deletes a message for everyone: it erases the content of the message, of its edits and of its reactions.
// Targets: seqs[0] is the message.
type deleteKind struct{ none }

func (deleteKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	return validateTarget("delete.target", body.GetDelete().GetTarget())
}

func (deleteKind) needs(_ ids.User, body *conversationv1.Body) []Need {
	return []Need{{Seq: ids.Seq(body.GetDelete().GetTarget())}}
}

func (deleteKind) check(r *request) *conversationv1.Error {
	message, refusal := r.message("body.delete.target", ids.Seq(r.body.GetDelete().GetTarget()))
	switch {
	case refusal != nil:
		return refusal
	case message.Sender != r.sender && (r.role != RoleOwner || r.state.Kind == conversationv1.Kind_KIND_DIRECT):
		return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body.delete.target", "only its sender or the owner of the group may delete a message")
	}
	return nil
}

func (deleteKind) targets(r *request) *conversationv1.Targets {
	return &conversationv1.Targets{Seqs: []uint64{r.body.GetDelete().GetTarget()}}
}

func (deleteKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	effects := changeRow(o, ids.Seq(o.target()), func(row *historyv1.MessageRow) { row.DeletedSeq = o.event.GetSeq() })
	return append(effects,
		&historyv1.Effect{Effect: &historyv1.Effect_DropReactions{DropReactions: &historyv1.DropReactions{Target: o.target()}}},
		// Replies also have the message as a target, but are kept: only events that belong to the message are erased.
		erase(&historyv1.EraseEvents{Seqs: []uint64{o.target()}, Below: o.event.GetSeq(), Kinds: MessageKinds()}),
		erase(&historyv1.EraseEvents{
			Seqs: []uint64{o.target()}, Targeting: true, Below: o.event.GetSeq(),
			Kinds: kindsThat(func(r *row) bool { return r.belongs && r.class == Content }),
		}),
	)
}

func erase(events *historyv1.EraseEvents) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_EraseEvents{EraseEvents: events}}
}
