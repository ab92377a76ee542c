package delivery

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// maxFacts is how many entries of facts are kept of one conversation between batches; above it all of them are forgotten.
const maxFacts = 256

// need is what a command needs to know of a message of a conversation.
type need struct {
	conversation string
	conversation.Need
}

// facts gives what is known of messages of a conversation that is in memory; nil for none.
func (b *book) facts(id string) *conversation.Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.find(id); p != nil {
		return p.facts
	}
	return nil
}

// unknown names what the commands of a batch need and what is not in memory. A seq above the committed head names nothing
// yet, or an event of the same batch. Conversations with a need get facts to load into.
func (b *book) unknown(entries []source.Message) []need {
	b.mu.Lock()
	defer b.mu.Unlock()
	var needs []need
	var seen map[need]struct{}
	for i := range entries {
		if len(entries[i].Needs) == 0 {
			continue
		}
		id := entries[i].Command.GetConversationId()
		p := b.find(id)
		if p == nil {
			continue // an id that no conversation can have
		}
		if p.facts == nil {
			p.facts = conversation.NewFacts(nil)
		}
		for _, named := range entries[i].Needs {
			wanted := need{id, named}
			if _, twice := seen[wanted]; twice || p.state == nil || named.Seq == 0 || named.Seq > p.state.Head || p.facts.Knows(named) {
				continue
			}
			if seen == nil {
				seen = map[need]struct{}{}
			}
			seen[wanted] = struct{}{}
			needs = append(needs, wanted)
		}
	}
	return needs
}

// addFacts puts what the store knows into memory.
func (b *book) addFacts(needs []need, found []*historyv1.Fact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fact := range found {
		wanted := needs[fact.GetNeed()]
		p := b.find(wanted.conversation)
		before := p.facts.Len()
		p.facts.Load(wanted.Need, fact)
		b.weight += p.facts.Len() - before
	}
}

// mergeFacts makes the facts after a committed batch the present ones. After an erasure those of the conversation are
// forgotten: it may reach further than what is in memory. Callers hold mu.
func (b *book) mergeFacts(batch *plan) {
	for id, layer := range batch.facts {
		p := b.find(id)
		if p == nil || p.facts == nil {
			continue
		}
		before := p.facts.Len()
		if layer.Merge(); p.facts.Len() > maxFacts {
			p.facts = nil
		}
		b.weight += p.facts.Len() - before
	}
	for _, effect := range batch.effects {
		if effect.GetEraseEvents() == nil {
			continue
		}
		if p := b.find(batch.events[effect.GetEvent()].GetConversationId()); p != nil {
			b.weight -= p.facts.Len()
			p.facts = nil
		}
	}
}

// loadFacts brings what the commands of a batch refer to into memory. Their conversations are in memory already.
func (s *session) loadFacts(ctx context.Context, entries []source.Message) error {
	needs := s.book.unknown(entries)
	if len(needs) == 0 || bugNeedsNotLoaded {
		return nil
	}
	for len(needs) > 0 {
		chunk := needs[:min(len(needs), rpc.MaxItems)]
		needs = needs[len(chunk):]
		if err := ask(ctx, s.owner, "facts", chunk, s.askFacts); err != nil {
			return err
		}
	}
	return nil
}

// askFacts asks the store once. Every seq up to the head is an event, so the store must know all of them.
func (s *session) askFacts(ctx context.Context, needs []need) error {
	request := &historyv1.GetFactsRequest{Needs: make([]*historyv1.Need, len(needs))}
	for i, n := range needs {
		request.Needs[i] = &historyv1.Need{ConversationId: n.conversation, Seq: n.Seq, UserId: n.User}
	}
	answer, err := s.owner.history.GetFacts(ctx, request)
	if err != nil {
		return err
	}
	known := make([]bool, len(needs))
	for _, fact := range answer.GetFacts() {
		if int(fact.GetNeed()) >= len(needs) {
			return fmt.Errorf("the store named fact %d of %d", fact.GetNeed(), len(needs))
		}
		known[fact.GetNeed()] = true
	}
	for i, ok := range known {
		if !ok {
			err := fmt.Errorf("the store lacks event %d of conversation %s, although it is not above the head; check the log with runnel admin conversations verify",
				needs[i].Seq, needs[i].conversation)
			s.owner.alarm(err)
			return err
		}
	}
	s.book.addFacts(needs, answer.GetFacts())
	return nil
}
