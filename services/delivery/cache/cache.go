// Package cache holds the conversations of one partition in memory: committed states, facts about messages that commands
// refer to, and the members' cursors. It does not know the store: its callers load conversations into it, and collect
// moved cursors from it.
package cache

import (
	"sync"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// maxWanted limits the acknowledgements that wait for their conversation to be loaded. Acknowledgements above the limit
// are dropped: the next acknowledgement of the same member includes them.
const maxWanted = 8192

// entry holds one conversation in memory.
type entry struct {
	// state is the committed state; nil for a conversation that does not exist.
	state *conversation.State
	// facts are the known facts about messages that commands referred to; nil if there are none.
	facts *conversation.Facts
	// cursors are the cursors of the current members.
	cursors cursor.Table
}

// weight is what an entry counts towards the cache's capacity.
func (e *entry) weight() int {
	weight := 1 + e.cursors.Len() + e.facts.Len()
	if e.state != nil {
		weight += len(e.state.Removed)
	}
	return weight
}

// Cache holds the conversations of one partition: their committed states, by which commands are decided, and their members'
// cursors. It is never behind the store, because one worker at a time writes to a partition; a worker that loses a partition
// discards its cache.
//
// One goroutine, the commit loop, reads states, adds entries and commits. Acknowledgements and the cursor flusher come
// from other goroutines. There are two generations of entries: used since the last trim, and not used since. The next
// trim evicts entries of the second generation, unless they hold cursors that are not stored yet.
type Cache struct {
	capacity int

	mu          sync.Mutex
	young, old  map[ids.Conversation]*entry
	weight      int                                  // total weight of the entries in young
	dirty       map[ids.Conversation]*entry          // entries with moved cursors or a receipt due
	saving      map[ids.Conversation]*entry          // entries whose moved cursors are being stored
	waitingAcks map[ids.Conversation][]*brokerv1.Ack // acknowledgements for conversations that are not in memory
	waiting     int                                  // number of acknowledgements in waitingAcks

	// LoadWanted is raised when acknowledgements wait for a conversation to be loaded.
	LoadWanted wake.Signal
	flush      wake.Signal // raised when dirty is not empty
}

// New creates an empty cache. capacity is approximately the number of members that it holds.
func New(capacity int) *Cache {
	return &Cache{
		capacity: capacity,
		young:    map[ids.Conversation]*entry{}, old: map[ids.Conversation]*entry{}, dirty: map[ids.Conversation]*entry{}, saving: map[ids.Conversation]*entry{},
		waitingAcks: map[ids.Conversation][]*brokerv1.Ack{},
		LoadWanted:  wake.NewSignal(), flush: wake.NewSignal(),
	}
}

// findLocked returns the entry of a conversation, nil when it is not in memory.
func (c *Cache) findLocked(id ids.Conversation) *entry {
	if e := c.young[id]; e != nil {
		return e
	}
	e := c.old[id]
	if e != nil {
		delete(c.old, id)
		c.putLocked(id, e)
	}
	return e
}

func (c *Cache) putLocked(id ids.Conversation, e *entry) {
	c.young[id] = e
	c.weight += e.weight()
}

// State returns the committed state of a conversation that is in memory.
func (c *Cache) State(id ids.Conversation) *conversation.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.findLocked(id); e != nil {
		return e.state
	}
	return nil
}

// Cursors returns the cursors of a conversation's members by rising user id. The call does not count as use.
func (c *Cache) Cursors(id ids.Conversation) []*conversationv1.Cursor {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.young[id]
	if e == nil {
		e = c.old[id]
	}
	if e == nil {
		return nil
	}
	return e.cursors.Protos()
}

// Missing appends to dst the wanted conversations that are not in memory.
func (c *Cache) Missing(dst []string, wanted map[ids.Conversation]struct{}) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range wanted {
		if c.findLocked(id) == nil {
			dst = append(dst, string(id))
		}
	}
	return dst
}

// AddLoaded adds conversations as the store returned them. Conversations in asked that are not in found do not exist. The
// acknowledgements that waited for these conversations are applied.
func (c *Cache) AddLoaded(asked []string, found []*historyv1.ConversationState, nowMs int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, loaded := range found {
		e := &entry{
			state: &conversation.State{
				Kind: loaded.GetKind(), Name: loaded.GetName(), Creator: ids.User(loaded.GetCreator()), Head: ids.Seq(loaded.GetHead()), HeadHash: loaded.GetHeadHash(),
				NameSource: conversation.NameSource{
					Seq: ids.Seq(loaded.GetNameSource().GetSeq()), Sender: ids.User(loaded.GetNameSource().GetSender()), TimeMs: loaded.GetNameSource().GetTimeMs(),
				},
				Members: make(map[ids.User]ids.Seq, len(loaded.GetMembers())),
			},
			cursors: cursor.TableOf(len(loaded.GetMembers()), func(i int) (ids.User, cursor.Position) {
				at := loaded.GetMembers()[i].GetCursor()
				return ids.User(at.GetUserId()), cursor.PositionOf(at)
			}),
		}
		for _, m := range loaded.GetMembers() {
			e.state.Members[ids.User(m.GetCursor().GetUserId())] = ids.Seq(m.GetJoinedSeq())
		}
		for _, r := range loaded.GetRemoved() {
			if e.state.Removed == nil {
				e.state.Removed = make(map[ids.User]ids.Seq, len(loaded.GetRemoved()))
			}
			e.state.Removed[ids.User(r.GetUserId())] = ids.Seq(r.GetSeq())
		}
		c.putLocked(ids.Conversation(loaded.GetConversationId()), e)
	}
	for _, id := range asked {
		if c.young[ids.Conversation(id)] == nil {
			c.putLocked(ids.Conversation(id), &entry{})
		}
		acks := c.waitingAcks[ids.Conversation(id)]
		delete(c.waitingAcks, ids.Conversation(id))
		c.waiting -= len(acks)
		for _, ack := range acks {
			c.moveLocked(c.young[ids.Conversation(id)], ack, nowMs)
		}
	}
}

// Change contains the changes that a committed batch makes in memory.
type Change struct {
	States  map[ids.Conversation]*conversation.State // states after the batch, by conversation
	Facts   map[ids.Conversation]*conversation.Facts // facts that replace the facts in memory
	Events  []*conversationv1.Event
	Effects []*historyv1.Effect
}

// ApplyCommitted applies the states and facts after a committed batch, and moves the cursors that the events move.
func (c *Cache) ApplyCommitted(batch Change, nowMs int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, state := range batch.States {
		e := c.findLocked(id)
		before := e.weight()
		e.state = state
		c.weight += e.weight() - before
	}
	c.mergeFactsLocked(batch)
	for _, event := range batch.Events {
		e := c.young[ids.Conversation(event.GetConversationId())]
		joined, left := conversation.Memberships(event)
		for _, user := range joined {
			if e.cursors.Add(ids.User(user)) {
				c.weight++
			}
		}
		if left != "" && e.cursors.Remove(left) {
			c.weight--
		}
		// The senders of events have seen them. A user who left has no cursor, but the number of members changed.
		c.moveLocked(e, &brokerv1.Ack{
			ConversationId: event.GetConversationId(), UserId: event.GetSender(), DeliveredSeq: event.GetSeq(), ReadSeq: event.GetSeq(),
		}, nowMs)
		c.markMovedLocked(ids.Conversation(event.GetConversationId()), e)
	}
}

// Weight returns the weight of the entries used since the last trim, in units of the capacity.
func (c *Cache) Weight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.weight
}

// Trim keeps the cache near its capacity: when it is full, the entries that were not used since the last trim are evicted. It
// is called between batches, never within one.
func (c *Cache) Trim() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.weight <= c.capacity {
		return
	}
	c.old, c.young, c.weight = c.young, make(map[ids.Conversation]*entry, len(c.young)), 0
	for _, kept := range []map[ids.Conversation]*entry{c.dirty, c.saving} {
		for id, e := range kept {
			if _, forgotten := c.old[id]; forgotten {
				delete(c.old, id)
				c.putLocked(id, e)
			}
		}
	}
}

// Acknowledge moves cursors. An acknowledgement of a conversation that is not in memory waits until the conversation is loaded.
// Acknowledge returns how many acknowledgements were dropped.
func (c *Cache) Acknowledge(acks []*brokerv1.Ack, nowMs int64) (dropped int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ack := range acks {
		id := ids.Conversation(ack.GetConversationId())
		if e := c.findLocked(id); e != nil {
			c.moveLocked(e, ack, nowMs)
			continue
		}
		if !conversation.ValidID(string(id)) || c.waiting >= maxWanted {
			dropped++
			continue
		}
		c.waitingAcks[id] = append(c.waitingAcks[id], ack)
		c.waiting++
		c.LoadWanted.Raise()
	}
	return dropped
}

// Wanted returns up to n conversations that acknowledgements wait for.
func (c *Cache) Wanted(n int) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]string, 0, min(n, len(c.waitingAcks)))
	for id := range c.waitingAcks {
		if len(list) == n {
			c.LoadWanted.Raise() // raised again for the remaining conversations
			break
		}
		list = append(list, string(id))
	}
	return list
}

// moveLocked moves a member's cursor forward, never beyond the head and never back. A read event also counts as received.
func (c *Cache) moveLocked(e *entry, ack *brokerv1.Ack, nowMs int64) {
	if e.state == nil || !e.cursors.Advance(ids.User(ack.GetUserId()), ids.Seq(ack.GetDeliveredSeq()), ids.Seq(ack.GetReadSeq()), e.state.Head, nowMs) {
		return
	}
	c.markMovedLocked(ids.Conversation(ack.GetConversationId()), e)
}

// markMovedLocked marks an entry for the next flush.
func (c *Cache) markMovedLocked(id ids.Conversation, e *entry) {
	c.dirty[id] = e
	c.flush.Raise()
}

// Moved returns the signal that is raised when there are moved cursors to collect.
func (c *Cache) Moved() wake.Signal { return c.flush }

// Collect adds the cursors that moved since the last call to m. It makes the receipts under the same lock, so that a
// receipt never contains a cursor that is not stored with it.
func (c *Cache) Collect(m *cursor.Moves) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.dirty {
		var head ids.Seq
		if e.state != nil {
			head = e.state.Head
		}
		m.Add(id, &e.cursors, head)
		c.saving[id] = e
	}
	clear(c.dirty)
}

// Saved reports that all collected cursors are stored: their entries may be evicted and loaded again.
func (c *Cache) Saved() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.saving)
}
