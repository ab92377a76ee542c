package cache

import (
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// maxFacts is the number of facts of one conversation that are kept between batches. If there are more, all are dropped.
const maxFacts = 256

// Need identifies a message about which a command needs a fact.
type Need struct {
	Conversation ids.Conversation
	conversation.Need
}

// Facts returns the known facts about messages of a conversation that is in memory; nil if there are none.
func (c *Cache) Facts(id ids.Conversation) *conversation.Facts {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.findLocked(id); e != nil {
		return e.facts
	}
	return nil
}

// UnknownNeeds returns the needs of a batch that are not in memory. It leaves out a seq above the committed head: that
// event does not exist yet, or is in the same batch. Each conversation with a need gets an entry for its facts.
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
			continue // no conversation can have this id
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

// mergeFactsLocked applies the facts after a committed batch. After an erasure, all facts of the conversation are
// dropped, because the erasure may cover events that are not in memory.
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
