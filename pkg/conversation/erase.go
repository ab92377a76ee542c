package conversation

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// eraseKind erases the content of earlier events. Its body says which events, and cannot be erased itself.
type eraseKind struct{ none }

func (eraseKind) levelOf(body *conversationv1.Body) Level {
	return LevelOfUsers(body.GetErase().GetSender())
}

func (eraseKind) validate(_ ids.User, body *conversationv1.Body) *FieldError {
	e := body.GetErase()
	set := 0
	for _, given := range []bool{len(e.GetSeqs()) > 0, e.GetSender() != "", e.GetBeforeMs() != 0} {
		if given {
			set++
		}
	}
	switch {
	case set != 1:
		return invalid("erase", "must name exactly one of seqs, sender and before_ms")
	case len(e.GetSeqs()) > protocol.MaxEraseSeqs:
		return invalid("erase.seqs", "must have at most %d entries", protocol.MaxEraseSeqs)
	case e.GetSender() != "" && !ValidUser(e.GetSender()):
		return invalid("erase.sender", "%s", UserRule)
	case e.GetBeforeMs() < 0:
		return invalid("erase.before_ms", "must not be negative")
	}
	for i, seq := range e.GetSeqs() {
		if seq == 0 || (i > 0 && seq <= e.GetSeqs()[i-1]) {
			return invalid("erase.seqs", "must rise, from 1")
		}
	}
	return nil
}

func (eraseKind) check(r *request) *conversationv1.Error {
	e := r.body.GetErase()
	switch seqs := e.GetSeqs(); {
	case len(seqs) > 0 && ids.Seq(seqs[len(seqs)-1]) > r.state.Head:
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body.erase.seqs", "names an event that does not exist yet")
	case e.GetBeforeMs() > r.timeMs:
		// A mistyped digit must not erase everything.
		return refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, "body.erase.before_ms", "must not lie in the future")
	}
	return nil
}

func (k eraseKind) fold(next *State, o *occurrence) {
	if k.covers(o.body.GetErase(), next.NameSource) {
		next.Name = ""
	}
}

func (k eraseKind) effects(before *State, o *occurrence) []*historyv1.Effect {
	e := o.body.GetErase()
	effects := []*historyv1.Effect{erase(&historyv1.EraseEvents{
		Seqs: e.GetSeqs(), Sender: e.GetSender(), BeforeMs: e.GetBeforeMs(), Kinds: kindsThat(func(r *row) bool { return r.class == Content }), Below: o.event.GetSeq(),
	})}
	if k.covers(e, before.NameSource) && before.Name != "" {
		effects = append(effects, setName("", before.NameSource))
	}
	return effects
}

// covers reports whether the erasure includes the event that gave the conversation its name.
func (eraseKind) covers(e *conversationv1.Erase, source NameSource) bool {
	return slices.Contains(e.GetSeqs(), uint64(source.Seq)) || (e.GetSender() != "" && e.GetSender() == string(source.Sender)) || source.TimeMs < e.GetBeforeMs()
}
