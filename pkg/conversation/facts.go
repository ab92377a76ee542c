package conversation

import (
	"maps"
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Need identifies a message that a command refers to, and the user whose reactions to it the rules need; User is empty if
// they need no reactions.
type Need struct {
	Seq  ids.Seq
	User ids.User
}

// Needs returns the entries that the facts must contain before a command with this body is applied; empty for most
// commands. A seq above the conversation's head belongs to no event, or to an event of the same batch.
func Needs(sender ids.User, body *conversationv1.Body) []Need {
	if r := rowOf(KindOf(body)); r != nil {
		return r.rules.needs(sender, body)
	}
	return nil
}

// Fact is what the rules know about an event that a command refers to. It is never changed.
type Fact struct {
	Kind   conversationv1.EventKind
	Sender ids.User
	TimeMs int64
	// Erased means that the event's own body is erased.
	Erased bool
	// Row is the message's view row. If there is no row, it has only its Seq set.
	Row *historyv1.MessageRow
}

// Facts are what the rules know about one conversation in addition to its state: the messages that commands refer to. A
// nil Facts is empty. Facts may have a base: lookups that miss continue in the base, and writes never change it.
// Therefore the Facts of a batch that is not committed are simply dropped. It is not safe for concurrent use.
type Facts struct {
	base      *Facts
	events    map[ids.Seq]*Fact
	reactions map[Need][]*historyv1.Reaction
}

// NewFacts makes Facts over a base, which may be nil.
func NewFacts(base *Facts) *Facts {
	return &Facts{base: base, events: map[ids.Seq]*Fact{}, reactions: map[Need][]*historyv1.Reaction{}}
}

// Len returns the number of entries, without the entries of the base.
func (f *Facts) Len() int {
	if f == nil {
		return 0
	}
	return len(f.events) + len(f.reactions)
}

// Knows reports whether the facts already contain an entry for a need.
func (f *Facts) Knows(need Need) bool {
	if f.event(need.Seq) == nil {
		return false
	}
	return need.User == "" || f.knowsReactions(need)
}

func (f *Facts) knowsReactions(need Need) bool {
	for ; f != nil; f = f.base {
		if _, known := f.reactions[need]; known {
			return true
		}
	}
	return false
}

// Load adds the store's answer to a need.
func (f *Facts) Load(need Need, fact *historyv1.Fact) {
	row := fact.GetRow()
	if row == nil {
		row = &historyv1.MessageRow{Seq: uint64(need.Seq)}
	}
	f.events[need.Seq] = &Fact{
		Kind: fact.GetKind(), Sender: ids.User(fact.GetSender()), TimeMs: fact.GetTimeMs(), Erased: fact.GetErased(), Row: row,
	}
	if need.User != "" {
		f.reactions[need] = fact.GetReactions()
	}
}

// Add adds an event and its effects, so that later commands of the batch can refer to them.
func (f *Facts) Add(event *conversationv1.Event, effects []*historyv1.Effect) {
	f.events[ids.Seq(event.GetSeq())] = &Fact{
		Kind: event.GetKind(), Sender: ids.User(event.GetSender()), TimeMs: event.GetTimeMs(), Erased: len(event.GetBody()) == 0,
		Row: &historyv1.MessageRow{Seq: event.GetSeq()},
	}
	for _, effect := range effects {
		switch e := effect.GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			if old := f.event(ids.Seq(e.PutMessage.GetSeq())); old != nil {
				changed := *old
				changed.Row = e.PutMessage
				f.events[ids.Seq(e.PutMessage.GetSeq())] = &changed
			}
		case *historyv1.Effect_PutReaction:
			need := Need{ids.Seq(e.PutReaction.GetTarget()), ids.User(e.PutReaction.GetUserId())}
			f.reactions[need] = append(slices.Clip(f.reactionsOf(need)), e.PutReaction)
		case *historyv1.Effect_DropReactions:
			f.drop(e.DropReactions)
		case *historyv1.Effect_EraseEvents:
			f.erase(e.EraseEvents)
		}
	}
}

// drop removes one reaction. If all reactions to a message are dropped, the message was deleted, and no command reads its
// reactions again.
func (f *Facts) drop(dropped *historyv1.DropReactions) {
	if dropped.GetSeq() == 0 {
		return
	}
	for layer := f; layer != nil; layer = layer.base {
		for need, reactions := range layer.reactions {
			if need.Seq != ids.Seq(dropped.GetTarget()) || !slices.ContainsFunc(reactions, func(r *historyv1.Reaction) bool { return r.GetSeq() == dropped.GetSeq() }) {
				continue
			}
			f.reactions[need] = slices.DeleteFunc(slices.Clone(f.reactionsOf(need)), func(r *historyv1.Reaction) bool { return r.GetSeq() == dropped.GetSeq() })
			return
		}
	}
}

// erase marks the known events that the erasure lists by seq. An erasure by sender or time may include events that are
// not in memory. Therefore such a command ends its batch (IsErasure), and the owner then drops the conversation's facts.
func (f *Facts) erase(erased *historyv1.EraseEvents) {
	for _, seq := range erased.GetSeqs() {
		if old := f.event(ids.Seq(seq)); old != nil && slices.Contains(erased.GetKinds(), old.Kind) {
			changed := *old
			changed.Erased = true
			f.events[ids.Seq(seq)] = &changed
		}
	}
}

// Merge moves the entries of f into its base, which must not be nil; f must not be used afterwards.
func (f *Facts) Merge() *Facts {
	maps.Copy(f.base.events, f.events)
	maps.Copy(f.base.reactions, f.reactions)
	return f.base
}

// event returns the fact about an event; nil if it is not known.
func (f *Facts) event(seq ids.Seq) *Fact {
	for ; f != nil; f = f.base {
		if fact := f.events[seq]; fact != nil {
			return fact
		}
	}
	return nil
}

func (f *Facts) reactionsOf(need Need) []*historyv1.Reaction {
	for ; f != nil; f = f.base {
		if reactions, known := f.reactions[need]; known {
			return reactions
		}
	}
	return nil
}

// message returns a message that a command refers to, or the error for a reference that is not allowed.
func (r *request) message(field string, seq ids.Seq) (*Fact, *conversationv1.Error) {
	fact := r.facts.event(seq)
	switch {
	case seq > r.state.Head:
		return nil, refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, field, "names an event that does not exist yet")
	case fact == nil || rowOf(fact.Kind) == nil || !rowOf(fact.Kind).message:
		return nil, refuse(conversationv1.ErrorCode_ERROR_CODE_INVALID, field, "must name a message")
	case fact.Row.GetDeletedSeq() != 0:
		return nil, refuse(conversationv1.ErrorCode_ERROR_CODE_CONFLICT, field, "the message was deleted")
	}
	return fact, nil
}
