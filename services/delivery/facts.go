package delivery

import (
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// maxFacts is how many entries of facts are kept of one conversation between batches; above it all are dropped.
const maxFacts = 256

// need is what a command needs to know of a message of a conversation.
type need struct {
	conversation string
	conversation.Need
}

// facts returns what is known of messages of a conversation that is in memory; nil for none.
func (b *book) facts(id string) *conversation.Facts {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.findLocked(id); p != nil {
		return p.facts
	}
	return nil
}

// unknown returns what the commands of a batch need and is not in memory. A seq above the committed head names nothing
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
		p := b.findLocked(id)
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

// addFacts adds facts as the store has them.
func (b *book) addFacts(needs []need, found []*historyv1.Fact) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fact := range found {
		wanted := needs[fact.GetNeed()]
		p := b.findLocked(wanted.conversation)
		before := p.facts.Len()
		p.facts.Load(wanted.Need, fact)
		b.weight += p.facts.Len() - before
	}
}

// mergeFactsLocked makes the facts after a committed batch the present ones. After an erasure the facts
// of the conversation are dropped: it may cover more than is in memory.
func (b *book) mergeFactsLocked(batch change) {
	for id, layer := range batch.facts {
		p := b.findLocked(id)
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
		if p := b.findLocked(batch.events[effect.GetEvent()].GetConversationId()); p != nil {
			b.weight -= p.facts.Len()
			p.facts = nil
		}
	}
}
