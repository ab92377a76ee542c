package conversation

import (
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// editKind replaces the content of the sender's own message. Targets: seqs[0] is the message. If the newest edit of a
// message is erased, the message counts as erased; its older content is not shown again.
type editKind struct{ none }

func (editKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	edit := body.GetEdit()
	if err := validateTarget("edit.target", edit.GetTarget()); err != nil {
		return err
	}
	return validateContent("edit", edit.GetText(), edit.GetMetadata())
}

func (editKind) levelOf(body *conversationv1.Body) Level {
	return levelOfText(body.GetEdit().GetText())
}

func (editKind) needs(_ ids.User, body *conversationv1.Body) []Need {
	return []Need{{Seq: ids.Seq(body.GetEdit().GetTarget())}}
}

func (editKind) check(r *request) *conversationv1.Error {
	message, refusal := r.message("body.edit.target", ids.Seq(r.body.GetEdit().GetTarget()))
	switch {
	case refusal != nil:
		return refusal
	case message.Sender != r.sender:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "body.edit.target", "only its sender may edit a message")
	case message.Erased:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.edit.target", "the message was erased")
	}
	return nil
}

func (editKind) targets(r *request) *conversationv1.Targets {
	return &conversationv1.Targets{Seqs: []uint64{r.body.GetEdit().GetTarget()}}
}

func (editKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	return changeRow(o, ids.Seq(o.target()), func(row *historyv1.MessageRow) {
		row.EditSeq, row.EditTimeMs = o.event.GetSeq(), o.event.GetTimeMs()
	})
}

func (editKind) content(body *conversationv1.Body) *conversationv1.Message {
	edit := body.GetEdit()
	if edit == nil {
		return nil
	}
	return &conversationv1.Message{Text: edit.GetText(), Metadata: edit.GetMetadata()}
}
