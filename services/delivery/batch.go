package delivery

import (
	"fmt"
	"strings"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// plan is what a batch of commands comes to. It holds for the world it was made on and changes nothing by itself.
type plan struct {
	// verdicts are in the order of the entries.
	verdicts []verdict
	// events are the new events in stream order; causes[i] is the index of the entry that events[i] came of, sequences[i] its
	// place in the stream.
	events    []*conversationv1.Event
	causes    []int
	sequences []uint64
	// effects are what the events write beside themselves.
	effects []*historyv1.Effect
	// letters are the commands to put aside, refusals those that are answered with an error and must not happen later.
	letters  []*historyv1.DeadLetter
	refusals []*historyv1.Refusal
	// states are the states of the conversations that change, as they are after the batch.
	states map[string]*conversation.State
	// facts are those of conversations in which commands of the batch refer to messages, over the ones in memory.
	facts map[string]*conversation.Facts
}

// world is what a planner looks at: what is committed, as far as it is in memory.
type world struct {
	state    func(id string) *conversation.State
	facts    func(id string) *conversation.Facts
	refusals *refusals
}

// planner makes plans for one partition. It is pure: the same entries, knowledge and world give the same plan.
//
// Each command is judged by what comes first in this list:
//
//	committed before      the first outcome again, or a conflict when its body was another
//	refusal remembered    for this attempt or a higher one: that refusal
//	too late              by the stream's time: unknown. That is no refusal, and it is not remembered
//	otherwise             it is carried out, refused, or put aside; the last two are remembered
//
// A batch comes to the same log and the same answers as its commands one by one, wherever batches are cut.
type planner struct {
	partition, partitions int
	apply                 func(*conversation.State, *conversation.Facts, *brokerv1.Command, *conversationv1.Body, int64) (conversation.Result, *conversationv1.Error)
}

// drafting is a plan in the making.
type drafting struct {
	*planner
	*plan

	world world
	known *knowledge
	made  map[source.CommandKey]*conversationv1.Event
	// refused are the refusals of this batch, by command; nil while there is none.
	refused map[source.CommandKey]*refused
	// erased is what this batch erases, by conversation; nil while there is nothing.
	erased map[string][]*historyv1.EraseEvents
}

func (p *planner) plan(entries []source.Message, known *knowledge, w world) *plan {
	d := &drafting{
		planner: p, world: w, known: known,
		plan: &plan{
			verdicts:  make([]verdict, len(entries)),
			events:    make([]*conversationv1.Event, 0, len(entries)),
			causes:    make([]int, 0, len(entries)),
			sequences: make([]uint64, 0, len(entries)),
			states:    make(map[string]*conversation.State, min(len(entries), 64)),
			facts:     layers(entries, w.facts),
		},
		made: make(map[source.CommandKey]*conversationv1.Event, len(entries)),
	}
	for i := range entries {
		d.judge(i, &entries[i])
	}
	return d.plan
}

// layers are Facts over those in memory, for each conversation in which a command refers to a message. A batch without such
// commands has none, so that a plain message costs nothing.
func layers(entries []source.Message, base func(id string) *conversation.Facts) map[string]*conversation.Facts {
	var facts map[string]*conversation.Facts
	for i := range entries {
		if len(entries[i].Needs) == 0 {
			continue
		}
		id := entries[i].Command.GetConversationId()
		if facts[id] != nil {
			continue
		}
		if facts == nil {
			facts = map[string]*conversation.Facts{}
		}
		facts[id] = conversation.NewFacts(base(id))
	}
	return facts
}

// judge decides what becomes of one command.
func (d *drafting) judge(i int, e *source.Message) {
	v := &d.verdicts[i]
	if v.dead = d.unfit(e); v.dead != "" {
		v.unfit = true
		d.putAside(e, v)
		return
	}
	key := source.KeyOf(e.Command)
	first := d.known.firsts[key]
	if first == nil {
		first = d.made[key]
	}
	if first != nil {
		v.repeat(first, e.Command, d.erases(first))
		return
	}
	if known := d.remembered(key, e); known != nil {
		v.refusal, v.remembered = known.err, true
		if known.stale(e.TimeMs()) {
			again := *known
			again.timeMs = e.TimeMs()
			d.remember(&again, v)
		}
		return
	}
	if v.late = e.Late(); v.late {
		return
	}
	if v.dead = d.known.condemned[e.Sequence]; v.dead == "" {
		d.carryOut(i, key, e, v)
	}
	if v.refusal != nil || v.dead != "" {
		commitment := chain.Commitment(e.Command.GetSalt(), e.Command.GetBody())
		d.remember(&refused{key: key, attempt: e.Command.GetAttempt(), timeMs: e.TimeMs(), err: v.err(), commitment: commitment[:]}, v)
	}
	if v.dead != "" {
		d.putAside(e, v)
	}
}

// unfit says why a message can never be committed here; empty for nearly every one.
func (d *drafting) unfit(e *source.Message) string {
	switch {
	case e.Command == nil:
		return "the payload is not a command"
	case conversation.Partition(e.Command.GetConversationId(), d.partitions) != d.partition:
		return "the conversation belongs to another partition"
	case e.Overstated:
		return "its kind or level is above the installation's level: no gateway admits it"
	}
	return ""
}

func (d *drafting) putAside(e *source.Message, v *verdict) {
	d.letters = append(d.letters, &historyv1.DeadLetter{Sequence: e.Sequence, Reason: v.dead, Payload: e.Payload})
}

// remembered returns the refusal that holds for a command; nil for none.
func (d *drafting) remembered(key source.CommandKey, e *source.Message) *refused {
	if known := d.refused[key]; known != nil && known.answers(e.Command.GetAttempt(), e.TimeMs()) {
		return known
	}
	return d.world.refusals.find(key, e.Command.GetAttempt(), e.TimeMs())
}

// remember has a refusal stored with the batch. When there is no room for it the command's outcome stays unknown: no copy
// of it is promised never to happen. A command that can never be committed need not be remembered.
func (d *drafting) remember(r *refused, v *verdict) {
	if !r.key.Committable() {
		return
	}
	if v.unremembered = !d.world.refusals.fits(r.timeMs, d.refusals); v.unremembered {
		return
	}
	if d.refused == nil {
		d.refused = map[source.CommandKey]*refused{}
	}
	d.refused[r.key] = r
	d.refusals = append(d.refusals, r.proto())
}

// carryOut applies one command. Apply is total by contract; should it panic all the same, one command must not stop a
// partition. It is pure, so there is no point in trying again.
func (d *drafting) carryOut(i int, key source.CommandKey, e *source.Message, v *verdict) {
	before, changed := d.states[key.Conversation]
	if !changed {
		before = d.world.state(key.Conversation)
	}
	facts := d.facts[key.Conversation]
	result, refusal, err := d.applied(before, facts, e)
	switch {
	case err != nil:
		v.dead = err.Error()
		return
	case refusal != nil:
		v.refusal = refusal
		return
	}
	v.event = result.Event
	if facts != nil {
		facts.Add(result.Event, result.Effects)
	}
	for _, effect := range result.Effects {
		effect.Event = uint32(len(d.events))
		d.effects = append(d.effects, effect)
		if erased := effect.GetEraseEvents(); erased != nil {
			if d.erased == nil {
				d.erased = map[string][]*historyv1.EraseEvents{}
			}
			d.erased[key.Conversation] = append(d.erased[key.Conversation], erased)
		}
	}
	d.states[key.Conversation] = result.State
	d.events = append(d.events, result.Event)
	d.causes = append(d.causes, i)
	d.sequences = append(d.sequences, e.Sequence)
	d.made[key] = result.Event
}

// erases reports whether a command of this batch erases an event.
func (d *drafting) erases(event *conversationv1.Event) bool {
	for _, erased := range d.erased[event.GetConversationId()] {
		if conversation.Covers(erased, event) {
			return true
		}
	}
	return false
}

func (d *drafting) applied(before *conversation.State, facts *conversation.Facts, e *source.Message) (result conversation.Result, refusal *conversationv1.Error, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("applying it panicked: %.200s", strings.ToValidUTF8(fmt.Sprint(r), "?"))
		}
	}()
	result, refusal = d.apply(before, facts, e.Command, e.Body, e.TimeMs())
	return result, refusal, nil
}

// doubtful names the commands without an event that nobody has asked the store about. A retry of a committed create, leave
// or add looks refused by the state that it led to itself, and "committed before" wins over all else.
func (p *plan) doubtful(entries []source.Message, known *knowledge) []source.CommandKey {
	var keys []source.CommandKey
	for i := range p.verdicts {
		v := &p.verdicts[i]
		// A repeated erasure must be known before it is appended: the store's ledger would note that it erases up to here.
		if v.unfit || (v.event != nil && (v.repeated || !conversation.IsErasure(entries[i].Body))) {
			continue
		}
		key := source.KeyOf(entries[i].Command)
		if _, done := known.looked[key]; done || known.firsts[key] != nil || !key.Committable() {
			continue
		}
		known.looked[key] = struct{}{}
		keys = append(keys, key)
	}
	return keys
}

// cut is where a batch must end at the latest: behind the first command that erases content, since what that covers is known
// only to the store, or before the first one that this build cannot judge.
func cut(entries []source.Message) int {
	for i := range entries {
		switch e := &entries[i]; {
		case e.TooNew:
			return i
		case conversation.IsErasure(e.Body):
			return i + 1
		}
	}
	return len(entries)
}
