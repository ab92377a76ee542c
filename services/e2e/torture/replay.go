package torture

import (
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// replayed is the result of replaying a log from its first event.
type replayed struct {
	state *conversation.State
	views *Views
	// erased maps the seq of each event whose content was erased to the seq of the erasing event, as far as the log
	// states it.
	erased map[uint64]uint64
}

// replay rebuilds state and views from a log. The stored log no longer contains the erased content, so an erasure changes
// no rows here.
func replay(log []*conversationv1.Event) *replayed {
	r := &replayed{state: &conversation.State{}, views: newViews(), erased: map[uint64]uint64{}}
	facts := conversation.NewFacts(nil)
	for _, event := range log {
		next, effects := conversation.Replay(r.state, facts, event)
		facts.Add(event, effects)
		for _, effect := range effects {
			r.carryOut(log, event, effect)
		}
		r.state = next
	}
	r.views.Name, r.views.Members = r.state.Name, r.state.Members
	return r
}

func (r *replayed) carryOut(log []*conversationv1.Event, cause *conversationv1.Event, effect *historyv1.Effect) {
	switch e := effect.GetEffect().(type) {
	case *historyv1.Effect_PutMessage:
		r.views.Messages[e.PutMessage.GetSeq()] = e.PutMessage
	case *historyv1.Effect_PutReaction:
		r.views.Reactions[Reaction{e.PutReaction.GetTarget(), e.PutReaction.GetUserId(), e.PutReaction.GetEmoji()}] = e.PutReaction.GetSeq()
	case *historyv1.Effect_DropReactions:
		maps.DeleteFunc(r.views.Reactions, func(reaction Reaction, seq uint64) bool {
			return reaction.Target == e.DropReactions.GetTarget() && (e.DropReactions.GetSeq() == 0 || e.DropReactions.GetSeq() == seq)
		})
	case *historyv1.Effect_EraseEvents:
		for _, event := range log {
			if _, already := r.erased[event.GetSeq()]; !already && conversation.Covers(e.EraseEvents, event) {
				r.erased[event.GetSeq()] = cause.GetSeq()
			}
		}
	}
}

// CheckReplay checks I11: replaying a log gives the stored state and rows. It also checks that exactly the events are
// erased that the log erases.
func CheckReplay(_ History, c Content) (found []Violation) {
	for _, id := range slices.Sorted(maps.Keys(c.Logs)) {
		log := c.Logs[id]
		again := replay(log)
		for _, problem := range differences(again.views, c.of(id)) {
			found = append(found, violation("I11", "%s: %s", id, problem))
		}
		for _, event := range log {
			by, erased := again.erased[event.GetSeq()]
			switch gone := len(event.GetBody()) == 0 && len(event.GetSalt()) == 0; {
			case gone && !erased:
				found = append(found, violation("erasure", "%s seq %d has no content, and no event of the log erased it", id, event.GetSeq()))
			case erased && !gone:
				found = append(found, violation("erasure", "%s seq %d was erased by seq %d, and its content is stored", id, event.GetSeq(), by))
			}
		}
	}
	return found
}

// differences returns how stored views differ from the expected ones.
func differences(want, stored *Views) (problems []string) {
	differ := func(what string, want, stored any) {
		problems = append(problems, fmt.Sprintf("%s: the log gives %v, stored is %v", what, want, stored))
	}
	if want.Name != stored.Name {
		differ("its name", want.Name, stored.Name)
	}
	if !maps.Equal(want.Members, stored.Members) {
		differ("its members", want.Members, stored.Members)
	}
	if !maps.EqualFunc(want.Messages, stored.Messages, func(a, b *historyv1.MessageRow) bool { return proto.Equal(a, b) }) {
		for seq := range union(want.Messages, stored.Messages) {
			if !proto.Equal(want.Messages[seq], stored.Messages[seq]) {
				differ(fmt.Sprintf("the view of message %d", seq), want.Messages[seq], stored.Messages[seq])
			}
		}
	}
	if !maps.Equal(want.Reactions, stored.Reactions) {
		for reaction := range union(want.Reactions, stored.Reactions) {
			if want.Reactions[reaction] != stored.Reactions[reaction] {
				differ(fmt.Sprintf("the reaction %s of %s to %d", reaction.Emoji, reaction.User, reaction.Target), want.Reactions[reaction], stored.Reactions[reaction])
			}
		}
	}
	return problems
}

func union[K comparable, V any](a, b map[K]V) map[K]V {
	both := maps.Clone(a)
	maps.Copy(both, b)
	return both
}
