package delivery

import (
	"maps"
	"slices"
	"sync"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// maxWanted bounds the acknowledgements that wait for their conversation to be loaded. Above it they are dropped: the next one
// of the same member includes them.
const maxWanted = 8192

// page is what is in memory of one conversation.
type page struct {
	// state is the committed state; nil for a conversation that does not exist.
	state *conversation.State
	// facts are what is known of messages that commands referred to; nil for none.
	facts *conversation.Facts
	// cursors are those of the present members.
	cursors map[string]cursor
	// moved names the members whose cursors are ahead of the store; changed asks for a receipt.
	moved   map[string]struct{}
	changed bool
}

// weight is what a page counts towards the book's capacity.
func (p *page) weight() int { return 1 + len(p.cursors) + p.facts.Len() }

// book holds the conversations of one partition: their committed states, to judge commands by, and their members' cursors.
// It is never behind the store, because one worker at a time writes to a partition; a worker that loses a partition throws
// its book away.
//
// One goroutine, the commit loop, reads states, adds pages and commits. Acknowledgements and the cursor flusher come from
// other goroutines. There are two generations of pages: those used since the last trim and those used before it. The next trim
// evicts the latter, unless they hold cursors that are not stored yet.
type book struct {
	capacity int

	mu         sync.Mutex
	young, old map[string]*page
	weight     int                        // of the pages in young
	dirty      map[string]*page           // those with moved cursors or a receipt due
	saving     map[string]*page           // those whose moves are on their way to the store
	wanted     map[string][]*brokerv1.Ack // by conversation that is not in memory
	waiting    int                        // acknowledgements in wanted

	// load and flush each hold a token when there is something in wanted, or in dirty.
	load, flush wake.Signal
}

func newBook(capacity int) *book {
	return &book{
		capacity: capacity,
		young:    map[string]*page{}, old: map[string]*page{}, dirty: map[string]*page{}, saving: map[string]*page{},
		wanted: map[string][]*brokerv1.Ack{},
		load:   wake.NewSignal(), flush: wake.NewSignal(),
	}
}

// findLocked returns the page of a conversation, nil when it is not in memory.
func (b *book) findLocked(id string) *page {
	if p := b.young[id]; p != nil {
		return p
	}
	p := b.old[id]
	if p != nil {
		delete(b.old, id)
		b.putLocked(id, p)
	}
	return p
}

func (b *book) putLocked(id string, p *page) {
	b.young[id] = p
	b.weight += p.weight()
}

// state returns the committed state of a conversation that is in memory.
func (b *book) state(id string) *conversation.State {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.findLocked(id); p != nil {
		return p.state
	}
	return nil
}

// cursors returns the cursors of a conversation's members by rising user id. Asking does not count as use.
func (b *book) cursors(id string) []*conversationv1.Cursor {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.young[id]
	if p == nil {
		p = b.old[id]
	}
	if p == nil {
		return nil
	}
	all := make([]*conversationv1.Cursor, 0, len(p.cursors))
	for _, user := range slices.Sorted(maps.Keys(p.cursors)) {
		all = append(all, p.cursors[user].proto(user))
	}
	return all
}

// missing appends the ids to dst that are not in memory.
func (b *book) missing(dst []string, ids map[string]struct{}) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range ids {
		if b.findLocked(id) == nil {
			dst = append(dst, id)
		}
	}
	return dst
}

// add adds conversations as the store has them; those of ids that were not found do not exist. The acknowledgements that
// waited for them are applied.
func (b *book) add(ids []string, found []*historyv1.ConversationState, nowMs int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range found {
		p := &page{
			state: &conversation.State{
				Kind: c.GetKind(), Name: c.GetName(), Creator: c.GetCreator(), Head: c.GetHead(), HeadHash: c.GetHeadHash(),
				NameSource: conversation.NameSource{
					Seq: c.GetNameSource().GetSeq(), Sender: c.GetNameSource().GetSender(), TimeMs: c.GetNameSource().GetTimeMs(),
				},
				Members: make(map[string]uint64, len(c.GetMembers())),
			},
			cursors: make(map[string]cursor, len(c.GetMembers())),
		}
		for _, m := range c.GetMembers() {
			at := m.GetCursor()
			p.state.Members[at.GetUserId()] = m.GetJoinedSeq()
			p.cursors[at.GetUserId()] = cursorOf(at)
		}
		b.putLocked(c.GetConversationId(), p)
	}
	for _, id := range ids {
		if b.young[id] == nil {
			b.putLocked(id, &page{})
		}
		acks := b.wanted[id]
		delete(b.wanted, id)
		b.waiting -= len(acks)
		for _, ack := range acks {
			b.moveLocked(b.young[id], ack, nowMs)
		}
	}
}

// change is what a committed batch changes in memory.
type change struct {
	states  map[string]*conversation.State // after the batch, by conversation
	facts   map[string]*conversation.Facts // over those in memory
	events  []*conversationv1.Event
	effects []*historyv1.Effect
}

// commit makes the states and facts after a committed batch the present ones, and moves the cursors that events move by
// themselves.
func (b *book) commit(batch change, nowMs int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, state := range batch.states {
		b.findLocked(id).state = state
	}
	b.mergeFactsLocked(batch)
	for _, event := range batch.events {
		p := b.young[event.GetConversationId()]
		joined, left := conversation.Memberships(event)
		for _, user := range joined {
			if p.cursors == nil {
				p.cursors = map[string]cursor{}
			}
			if _, present := p.cursors[user]; !present {
				p.cursors[user] = cursor{}
				b.weight++
			}
		}
		if left != "" {
			if _, present := p.cursors[left]; present {
				delete(p.cursors, left)
				b.weight--
			}
			delete(p.moved, left)
		}
		// A sender has seen their own event. A user who left has no cursor, but the number of members changed.
		b.moveLocked(p, &brokerv1.Ack{
			ConversationId: event.GetConversationId(), UserId: event.GetSender(), DeliveredSeq: event.GetSeq(), ReadSeq: event.GetSeq(),
		}, nowMs)
		b.markMovedLocked(event.GetConversationId(), p)
	}
}

// size is the size of what was used lately, in units of the capacity.
func (b *book) size() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.weight
}

// trim keeps the book near its capacity: when it is full, the pages that were not used since the last trim are evicted. It
// is called between batches, never within one.
func (b *book) trim() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.weight <= b.capacity {
		return
	}
	b.old, b.young, b.weight = b.young, make(map[string]*page, len(b.young)), 0
	for _, kept := range []map[string]*page{b.dirty, b.saving} {
		for id, p := range kept {
			if _, forgotten := b.old[id]; forgotten {
				delete(b.old, id)
				b.putLocked(id, p)
			}
		}
	}
}

// acknowledge moves cursors. An acknowledgement of a conversation that is not in memory waits until that is loaded. It
// returns how many were dropped.
func (b *book) acknowledge(acks []*brokerv1.Ack, nowMs int64) (dropped int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, ack := range acks {
		id := ack.GetConversationId()
		if p := b.findLocked(id); p != nil {
			b.moveLocked(p, ack, nowMs)
			continue
		}
		if !conversation.ValidID(id) || b.waiting >= maxWanted {
			dropped++
			continue
		}
		b.wanted[id] = append(b.wanted[id], ack)
		b.waiting++
		b.load.Raise()
	}
	return dropped
}

// wants returns up to n conversations that acknowledgements wait for.
func (b *book) wants(n int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	ids := make([]string, 0, min(n, len(b.wanted)))
	for id := range b.wanted {
		if len(ids) == n {
			b.load.Raise() // for the rest
			break
		}
		ids = append(ids, id)
	}
	return ids
}

// moveLocked moves a member's cursor forward, never beyond the head and never back. Reading implies having received.
func (b *book) moveLocked(p *page, ack *brokerv1.Ack, nowMs int64) {
	at, member := p.cursors[ack.GetUserId()]
	if !member || p.state == nil {
		return
	}
	if !at.advance(ack.GetDeliveredSeq(), ack.GetReadSeq(), p.state.Head, nowMs) {
		return
	}
	p.cursors[ack.GetUserId()] = at
	if p.moved == nil {
		p.moved = map[string]struct{}{}
	}
	p.moved[ack.GetUserId()] = struct{}{}
	b.markMovedLocked(ack.GetConversationId(), p)
}

// markMovedLocked marks a page for the next flush.
func (b *book) markMovedLocked(id string, p *page) {
	p.changed = true
	b.dirty[id] = p
	b.flush.Raise()
}

// Moved is raised when there are moves to collect.
func (b *book) Moved() wake.Signal { return b.flush }

// Collect adds to m what moved since the last call. Receipts are made at the same moment, so that they never contain a
// cursor that is not stored with them.
func (b *book) Collect(m *moves) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, p := range b.dirty {
		var head uint64
		if p.state != nil {
			head = p.state.Head
		}
		m.add(id, p.cursors, p.moved, head)
		b.saving[id] = p
		clear(p.moved)
		p.changed = false
	}
	clear(b.dirty)
}

// Saved says that all that was collected is stored: the entries may be evicted and loaded again.
func (b *book) Saved() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.saving)
}
