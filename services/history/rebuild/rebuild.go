// Package rebuild rebuilds the views of conversations from their logs: view rows of messages and reactions. It works
// while the services run. It builds the views of one conversation separately. In one transaction they replace the stored
// views, but only if the conversation's head is still the one for which they were built.
package rebuild

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Store is the part of the store that a rebuild needs.
type Store interface {
	Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error)
	ReplaceViews(ctx context.Context, conversationID ids.Conversation, head ids.Seq, rows []*historyv1.MessageRow, reactions []*historyv1.Reaction) (bool, error)
	ConversationIDs(ctx context.Context, after ids.Conversation) ([]string, error)
}

// Result counts what was rebuilt.
type Result struct {
	Conversations, Events, Rows, Reactions int
}

// All rebuilds the views of all conversations. progress is called after each conversation with the head of its new views.
func All(ctx context.Context, s Store, progress func(id ids.Conversation, head ids.Seq)) (Result, error) {
	var result Result
	for after := ids.Conversation(""); ; {
		list, err := s.ConversationIDs(ctx, after)
		if err != nil || len(list) == 0 {
			return result, err
		}
		for _, id := range list {
			built, err := one(ctx, s, ids.Conversation(id))
			if err != nil {
				return result, fmt.Errorf("rebuild the views of %s: %w", id, err)
			}
			result.Conversations++
			result.Events += int(built.head)
			result.Rows += len(built.rows)
			result.Reactions += len(built.reactions)
			progress(ids.Conversation(id), built.head)
		}
		after = ids.Conversation(list[len(list)-1])
	}
}

// one rebuilds the views of one conversation. Events that are added to the conversation meanwhile are included.
func one(ctx context.Context, s Store, id ids.Conversation) (*views, error) {
	v := &views{rows: map[uint64]*historyv1.MessageRow{}, reactions: map[uint64]*historyv1.Reaction{}}
	for {
		page, err := s.Read(ctx, &historyv1.ReadRequest{ConversationId: string(id), After: uint64(v.head), Limit: store.MaxPage})
		if err != nil {
			return nil, err
		}
		for _, event := range page.GetEvents() {
			if ids.Seq(event.GetSeq()) != v.head+1 {
				return nil, fmt.Errorf("seq %d is followed by %d: events are missing from the log; run runnel verify", v.head, event.GetSeq())
			}
			v.replay(event)
		}
		if page.GetMore() {
			continue
		}
		done, err := s.ReplaceViews(ctx, id, v.head, v.messageRows(), v.reactionRows())
		if err != nil || done {
			return v, err
		}
		if len(page.GetEvents()) == 0 && ids.Seq(page.GetHead()) > v.head {
			return nil, fmt.Errorf("the log ends at seq %d and its head is %d: events are missing from the log; run runnel verify", v.head, page.GetHead())
		}
	}
}

// views are the views of one conversation, up to a head.
type views struct {
	head      ids.Seq
	state     *conversation.State
	rows      map[uint64]*historyv1.MessageRow
	reactions map[uint64]*historyv1.Reaction // reactions by the seq of the event that added them
}

// replay applies the effects of an event.
func (v *views) replay(event *conversationv1.Event) {
	// The effects of an event depend only on the events that it refers to.
	facts := conversation.NewFacts(nil)
	for _, seq := range conversation.TargetsOf(event).GetSeqs() {
		facts.Load(conversation.Need{Seq: ids.Seq(seq)}, &historyv1.Fact{Row: v.rows[seq]})
	}
	var effects []*historyv1.Effect
	v.state, effects = conversation.Replay(v.state, facts, event)
	v.head = ids.Seq(event.GetSeq())
	for _, effect := range effects {
		switch e := effect.GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			v.rows[e.PutMessage.GetSeq()] = e.PutMessage
		case *historyv1.Effect_PutReaction:
			v.reactions[e.PutReaction.GetSeq()] = e.PutReaction
		case *historyv1.Effect_DropReactions:
			v.drop(e.DropReactions)
		}
		// An erasure changes nothing here: the events that it erased have no body any more, so they added no reactions.
	}
}

func (v *views) drop(dropped *historyv1.DropReactions) {
	if seq := dropped.GetSeq(); seq > 0 {
		delete(v.reactions, seq)
		return
	}
	for seq, reaction := range v.reactions {
		if reaction.GetTarget() == dropped.GetTarget() {
			delete(v.reactions, seq)
		}
	}
}

func (v *views) messageRows() []*historyv1.MessageRow {
	rows := make([]*historyv1.MessageRow, 0, len(v.rows))
	for _, row := range v.rows {
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b *historyv1.MessageRow) int { return cmp.Compare(a.GetSeq(), b.GetSeq()) })
	return rows
}

func (v *views) reactionRows() []*historyv1.Reaction {
	reactions := make([]*historyv1.Reaction, 0, len(v.reactions))
	for _, reaction := range v.reactions {
		reactions = append(reactions, reaction)
	}
	slices.SortFunc(reactions, func(a, b *historyv1.Reaction) int { return cmp.Compare(a.GetSeq(), b.GetSeq()) })
	return reactions
}
