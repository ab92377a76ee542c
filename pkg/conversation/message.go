package conversation

import (
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// messageKind sends a message. Targets: seqs[0] is the message that this message replies to, so that the thread is kept
// when the reply is erased.
type messageKind struct{ none }

func (messageKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	return validateContent("message", body.GetMessage().GetText(), body.GetMessage().GetMetadata())
}

func (messageKind) levelOf(body *conversationv1.Body) Level {
	return levelOfText(body.GetMessage().GetText())
}

func (messageKind) needs(_ ids.User, body *conversationv1.Body) []Need {
	if answered := ids.Seq(body.GetMessage().GetReplyTo()); answered != 0 {
		return []Need{{Seq: answered}}
	}
	return nil
}

func (messageKind) check(r *request) *conversationv1.Error {
	answered := ids.Seq(r.body.GetMessage().GetReplyTo())
	switch {
	case answered == 0:
		return nil
	case answered > r.state.Head:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body.message.reply_to", "names an event that does not exist yet")
	}
	if fact := r.facts.event(answered); fact == nil || rowOf(fact.Kind) == nil || !rowOf(fact.Kind).message {
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body.message.reply_to", "must name a message")
	}
	return nil // a deleted message can still be replied to: its thread continues
}

func (messageKind) targets(r *request) *conversationv1.Targets {
	if answered := r.body.GetMessage().GetReplyTo(); answered != 0 {
		return &conversationv1.Targets{Seqs: []uint64{answered}}
	}
	return nil
}

func (messageKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	if len(o.targets.GetSeqs()) == 0 {
		return nil
	}
	return changeRow(o, ids.Seq(o.targets.GetSeqs()[0]), func(row *historyv1.MessageRow) {
		row.Replies++
		row.LastReplySeq = o.event.GetSeq()
	})
}

// changeRow returns the effect that changes the view row of a message.
func changeRow(o *occurrence, seq ids.Seq, change func(*historyv1.MessageRow)) []*historyv1.Effect {
	fact := o.facts.event(seq)
	if fact == nil {
		return nil
	}
	row := proto.CloneOf(fact.Row)
	change(row)
	return []*historyv1.Effect{{Effect: &historyv1.Effect_PutMessage{PutMessage: row}}}
}

// target returns the first target of an event; 0 if the event has no targets.
func (o *occurrence) target() uint64 {
	if seqs := o.targets.GetSeqs(); len(seqs) > 0 {
		return seqs[0]
	}
	return 0
}

func (messageKind) content(body *conversationv1.Body) *conversationv1.Message {
	return body.GetMessage()
}
