package cache

import (
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// maxFacts is how many facts are kept of one conversation between batches; above it all are dropped.
const maxFacts = 256

// Need names a message of a conversation about which a command needs a fact.
type Need struct {
	Conversation ids.Conversation
	conversation.Need
}

// Facts returns the known facts about messages of a conversation that is in memory; nil for none.
func (c *Cache) Facts(id ids.Conversation) *conversation.Facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.findLocked(id); e != nil {
		return e.facts
	}
	return nil
}

// UnknownNeeds returns the needs of a batch that are not in memory. A seq above the committed head names no event yet, or an
// event of the same batch. Conversations with a need get an entry of facts to load into.
func (c *Cache) UnknownNeeds(messages []source.Message) []Need {
	c.mu.Lock()
	defer c.mu.Unlock()
	var needs []Need
	var seen map[Need]struct{}
	for i := range messages {
		if len(messages[i].Needs) == 0 {
			continue
		}
		id := ids.Conversation(messages[i].Command.GetConversationId())
		e := c.findLocked(id)
		if e == nil {
			continue // an id that no conversation can have
		}
		if e.facts == nil {
			e.facts = conversation.NewFacts(nil)
		}
		for _, named := range messages[i].Needs {
			wanted := Need{id, named}
			if _, twice := seen[wanted]; twice || e.state == nil || named.Seq == 0 || named.Seq > e.state.Head || e.facts.Knows(named) {
				continue
			}
			if seen == nil {
				seen = map[Need]struct{}{}
			}
			seen[wanted] = struct{}{}
			needs = append(needs, wanted)
		}
	}
	return needs
}

// AddFacts adds facts that were read from the store.
func (c *Cache) AddFacts(needs []Need, found []*historyv1.Fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fact := range found {
		wanted := needs[fact.GetNeed()]
		e := c.findLocked(wanted.Conversation)
		before := e.facts.Len()
		e.facts.Load(wanted.Need, fact)
		c.weight += e.facts.Len() - before
	}
}

// mergeFactsLocked applies the facts after a committed batch. After an erasure the facts of the conversation are dropped: the
// erasure may cover more than is in memory.
func (c *Cache) mergeFactsLocked(batch Change) {
	for id, layer := range batch.Facts {
		e := c.findLocked(id)
		if e == nil || e.facts == nil {
			continue
		}
		before := e.facts.Len()
		if layer.Merge(); e.facts.Len() > maxFacts {
			e.facts = nil
		}
		c.weight += e.facts.Len() - before
	}
	for _, effect := range batch.Effects {
		if effect.GetEraseEvents() == nil {
			continue
		}
		if e := c.findLocked(ids.Conversation(batch.Events[effect.GetEvent()].GetConversationId())); e != nil {
			c.weight -= e.facts.Len()
			e.facts = nil
		}
	}
}
