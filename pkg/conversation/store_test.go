package conversation_test

import (
	"slices"

	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// store is a model of history's data about one conversation: the log, and the rows written by effects.
type store struct {
	events    []*conversationv1.Event
	rows      map[uint64]*historyv1.MessageRow
	reactions []*historyv1.Reaction
}

// commit stores an event and carries out its effects, like a transaction of history.
func (s *store) commit(event *conversationv1.Event, effects []*historyv1.Effect) {
	s.events = append(s.events, event)
	s.carryOut(effects)
}

func (s *store) carryOut(effects []*historyv1.Effect) {
	for _, effect := range effects {
		switch e := effect.GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			if s.rows == nil {
				s.rows = map[uint64]*historyv1.MessageRow{}
			}
			s.rows[e.PutMessage.GetSeq()] = e.PutMessage
		case *historyv1.Effect_PutReaction:
			s.reactions = append(s.reactions, e.PutReaction)
		case *historyv1.Effect_DropReactions:
			s.dropReactions(func(r *historyv1.Reaction) bool {
				return r.GetTarget() == e.DropReactions.GetTarget() && (e.DropReactions.GetSeq() == 0 || r.GetSeq() == e.DropReactions.GetSeq())
			})
		case *historyv1.Effect_EraseEvents:
			s.erase(e.EraseEvents)
		}
	}
}

func (s *store) dropReactions(drop func(*historyv1.Reaction) bool) {
	if s.reactions = slices.DeleteFunc(s.reactions, drop); len(s.reactions) == 0 {
		s.reactions = nil
	}
}

func (s *store) erase(e *historyv1.EraseEvents) {
	for i, event := range s.events {
		named := slices.Contains(e.GetSeqs(), event.GetSeq())
		if e.GetTargeting() {
			targets := &conversationv1.Targets{}
			_ = proto.Unmarshal(event.GetHeaderExtra(), targets)
			named = len(targets.GetSeqs()) > 0 && slices.Contains(e.GetSeqs(), targets.GetSeqs()[0])
		}
		switch {
		case event.GetSeq() >= e.GetBelow() || !slices.Contains(e.GetKinds(), event.GetKind()):
		case len(e.GetSeqs()) > 0 && !named:
		case e.GetSender() != "" && e.GetSender() != event.GetSender():
		case e.GetBeforeMs() != 0 && event.GetTimeMs() >= e.GetBeforeMs():
		default:
			erased := proto.Clone(event).(*conversationv1.Event)
			chain.Erase(erased)
			s.events[i] = erased
			s.dropReactions(func(r *historyv1.Reaction) bool { return r.GetSeq() == event.GetSeq() })
		}
	}
}

// fact answers a need like GetFacts.
func (s *store) fact(need conversation.Need) *historyv1.Fact {
	if need.Seq == 0 || need.Seq > ids.Seq(len(s.events)) {
		return nil
	}
	event := s.events[need.Seq-1]
	fact := &historyv1.Fact{
		Kind: event.GetKind(), Sender: event.GetSender(), TimeMs: event.GetTimeMs(), Erased: len(event.GetBody()) == 0, Row: s.rows[uint64(need.Seq)],
	}
	for _, r := range s.reactions {
		if ids.Seq(r.GetTarget()) == need.Seq && ids.User(r.GetUserId()) == need.User {
			fact.Reactions = append(fact.Reactions, r)
		}
	}
	return fact
}

// view returns a message like ReadMessages.
func (s *store) view(seq uint64) *historyv1.StoredMessage {
	stored := &historyv1.StoredMessage{Event: s.events[seq-1], Row: s.rows[seq]}
	if edited := s.rows[seq].GetEditSeq(); edited != 0 {
		stored.Edit = s.events[edited-1]
	}
	return stored
}

// replay rebuilds the state and the rows from a log.
func replay(events []*conversationv1.Event) (*conversation.State, *store) {
	state, rebuilt := &conversation.State{}, &store{}
	for _, event := range events {
		facts, targets := conversation.NewFacts(nil), &conversationv1.Targets{}
		_ = proto.Unmarshal(event.GetHeaderExtra(), targets)
		for _, seq := range targets.GetSeqs() {
			facts.Load(conversation.Need{Seq: ids.Seq(seq)}, &historyv1.Fact{Row: rebuilt.rows[seq]}) // the rows that history's rebuild knows
		}
		next, effects := conversation.Replay(state, facts, event)
		for _, effect := range effects {
			if effect.GetEraseEvents() == nil { // erased content is already missing in the log
				rebuilt.carryOut([]*historyv1.Effect{effect})
			}
		}
		state = next
	}
	return state, rebuilt
}
