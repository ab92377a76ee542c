package conversation

import (
	"unicode"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// reactKind adds a reaction to a message, or removes it. Targets: seqs[0] is the message. For a removal, seqs[1] is the
// event that added the reaction, so that an erased event still shows which reaction it removed. An erased event that
// added a reaction no longer counts as a reaction.
type reactKind struct{ none }

func (reactKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	react := body.GetReact()
	if err := validateTarget("react.target", react.GetTarget()); err != nil {
		return err
	}
	emoji := react.GetEmoji()
	valid := emoji != "" && len(emoji) <= protocol.MaxEmojiBytes && validText(emoji, false)
	for _, r := range emoji {
		valid = valid && !unicode.IsSpace(r)
	}
	if !valid {
		return invalid("react.emoji", "must be 1 to %d bytes of UTF-8 without control characters or white space", protocol.MaxEmojiBytes)
	}
	return nil
}

func (reactKind) needs(sender ids.User, body *conversationv1.Body) []Need {
	return []Need{{Seq: ids.Seq(body.GetReact().GetTarget()), User: sender}}
}

func (k reactKind) check(r *request) *conversationv1.Error {
	react := r.body.GetReact()
	message, refusal := r.message("body.react.target", ids.Seq(react.GetTarget()))
	if refusal != nil {
		return refusal
	}
	added := k.added(r)
	switch {
	case react.GetRemove() && added == 0:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.react.emoji", "you have not added this reaction")
	case react.GetRemove():
		return nil
	case added != 0:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.react.emoji", "you have already added this reaction")
	case message.Erased:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, "body.react.target", "the message was erased")
	case len(r.facts.reactionsOf(Need{ids.Seq(react.GetTarget()), r.sender})) >= protocol.MaxReactionsPerUser:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_LIMIT, "body.react", "you have added too many reactions to this message")
	}
	return nil
}

// added returns the seq of the event that added this reaction of the sender; 0 if the sender has no such reaction.
func (reactKind) added(r *request) uint64 {
	react := r.body.GetReact()
	for _, reaction := range r.facts.reactionsOf(Need{ids.Seq(react.GetTarget()), r.sender}) {
		if reaction.GetEmoji() == react.GetEmoji() {
			return reaction.GetSeq()
		}
	}
	return 0
}

func (k reactKind) targets(r *request) *conversationv1.Targets {
	targets := &conversationv1.Targets{Seqs: []uint64{r.body.GetReact().GetTarget()}}
	if r.body.GetReact().GetRemove() {
		targets.Seqs = append(targets.Seqs, k.added(r))
	}
	return targets
}

func (reactKind) effects(_ *State, o *occurrence) []*historyv1.Effect {
	seqs := o.targets.GetSeqs()
	switch {
	case len(seqs) == 2:
		return []*historyv1.Effect{{Effect: &historyv1.Effect_DropReactions{DropReactions: &historyv1.DropReactions{Target: seqs[0], Seq: seqs[1]}}}}
	case o.body == nil:
		return nil
	}
	return []*historyv1.Effect{{Effect: &historyv1.Effect_PutReaction{PutReaction: &historyv1.Reaction{
		Target: o.target(), UserId: o.event.GetSender(), Emoji: o.body.GetReact().GetEmoji(), Seq: o.event.GetSeq(),
	}}}}
}
