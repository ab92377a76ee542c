// Package plan decides the results of a batch of commands: which events they create, which commands are refused, and which become
// dead letters. It is pure: it calls no other service and changes nothing.
package plan

import (
	"fmt"
	"strings"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Plan describes the effects of committing a batch of commands. It is valid only for the world for which it was made.
// Making a plan changes nothing.
type Plan struct {
	// Results are in the order of the messages.
	Results []Result
	// Events are the new events in stream order. Causes[i] is the index of the message that caused Events[i].
	// Sequences[i] is the sequence of that message in the stream.
	Events    []*conversationv1.Event
	Causes    []int
	Sequences []uint64
	// Effects are further writes to the store that the events cause.
	Effects []*historyv1.Effect
	// Letters are the dead letters. Refusals are the commands that are answered with an error and must not succeed later.
	Letters  []*historyv1.DeadLetter
	Refusals []*historyv1.Refusal
	// States contains the states after the batch of all conversations that change.
	States map[ids.Conversation]*conversation.State
	// Facts contains the facts of the conversations in which commands of the batch refer to messages. They take
	// precedence over the facts in memory.
	Facts map[ids.Conversation]*conversation.Facts
}

// World is the committed state in memory that a planner reads.
type World struct {
	State    func(id ids.Conversation) *conversation.State
	Facts    func(id ids.Conversation) *conversation.Facts
	Refusals *dedupe.Refusals
}

// Planner makes plans for one partition. It is pure: the same messages, dedupe facts and world give the same plan.
//
// The first line that applies to a command decides:
//
//	committed before      the first outcome again, or a conflict if the body differs
//	refusal remembered    for this attempt or a higher one: that refusal
//	too late              by the stream's time: unknown, which is not a refusal and is not remembered
//	otherwise             it is carried out, refused, or becomes a dead letter; refusals and dead letters are remembered
//
// The log and the answers do not depend on how commands are split into batches: one command per batch gives the same log and answers.
type Planner struct {
	Partition  ids.Partition
	Partitions int
	Apply      func(*conversation.State, *conversation.Facts, *brokerv1.Command, *conversationv1.Body, int64) (conversation.Result, *conversationv1.Error)
}

// draft is a plan while it is being made.
type draft struct {
	*Planner
	*Plan

	world World
	known *dedupe.Facts
	made  map[source.CommandKey]*conversationv1.Event
	// refused contains the refusals of this batch, by command; nil if there are none.
	refused map[source.CommandKey]*dedupe.Refusal
	// erased contains the erasures of this batch, by conversation; nil if there are none.
	erased map[ids.Conversation][]*historyv1.EraseEvents
}

// Make makes the plan of a batch. known are the dedupe facts found by earlier tries of the batch.
func (p *Planner) Make(messages []source.Message, known *dedupe.Facts, w World) *Plan {
	d := &draft{
		Planner: p, world: w, known: known,
		Plan: &Plan{
			Results:   make([]Result, len(messages)),
			Events:    make([]*conversationv1.Event, 0, len(messages)),
			Causes:    make([]int, 0, len(messages)),
			Sequences: make([]uint64, 0, len(messages)),
			States:    make(map[ids.Conversation]*conversation.State, min(len(messages), 64)),
			Facts:     layers(messages, w.Facts),
		},
		made: make(map[source.CommandKey]*conversationv1.Event, len(messages)),
	}
	for i := range messages {
		d.decide(i, &messages[i])
	}
	return d.Plan
}

// layers returns new Facts over the facts in memory, for each conversation in which a command refers to a message. A
// batch without such commands gets none, so a plain message costs nothing.
func layers(messages []source.Message, base func(id ids.Conversation) *conversation.Facts) map[ids.Conversation]*conversation.Facts {
	var facts map[ids.Conversation]*conversation.Facts
	for i := range messages {
		if len(messages[i].Needs) == 0 {
			continue
		}
		id := ids.Conversation(messages[i].Command.GetConversationId())
		if facts[id] != nil {
			continue
		}
		if facts == nil {
			facts = map[ids.Conversation]*conversation.Facts{}
		}
		facts[id] = conversation.NewFacts(base(id))
	}
	return facts
}

// decide decides the result of one command.
func (d *draft) decide(i int, e *source.Message) {
	v := &d.Results[i]
	if v.DeadReason = d.misplacement(e); v.DeadReason != "" {
		v.Misplaced = true
		d.addDeadLetter(e, v)
		return
	}
	key := source.KeyOf(e.Command)
	first := d.known.Firsts[key]
	if first == nil {
		first = d.made[key]
	}
	if first != nil {
		v.SetRepeated(first, e.Command, d.erases(first))
		return
	}
	if known := d.remembered(key, e); known != nil {
		v.Refusal, v.Remembered = known.Err, true
		if known.Stale(e.TimeMs()) {
			again := *known
			again.TimeMs = e.TimeMs()
			d.remember(&again, v)
		}
		return
	}
	if v.Late = e.Late(); v.Late {
		return
	}
	if v.DeadReason = d.known.Poisoned[e.Sequence]; v.DeadReason == "" {
		d.carryOut(i, key, e, v)
	}
	if v.Refusal != nil || v.DeadReason != "" {
		commitment := chain.Commitment(e.Command.GetSalt(), e.Command.GetBody())
		d.remember(&dedupe.Refusal{Key: key, Attempt: e.Command.GetAttempt(), TimeMs: e.TimeMs(), Err: v.Err(), Commitment: commitment[:]}, v)
	}
	if v.DeadReason != "" {
		d.addDeadLetter(e, v)
	}
}

// misplacement returns why a message can never be committed in this partition; empty for nearly every message.
func (d *draft) misplacement(e *source.Message) string {
	switch {
	case e.Command == nil:
		return "the payload is not a command"
	case conversation.Partition(ids.Conversation(e.Command.GetConversationId()), d.Partitions) != d.Partition:
		return "the conversation belongs to another partition"
	case e.Forged:
		return "forged: its sender is an internal service, but it was not published as one"
	case e.Overstated:
		return "its kind or level is above the installation's level: no gateway admits it"
	}
	return ""
}

func (d *draft) addDeadLetter(e *source.Message, v *Result) {
	d.Letters = append(d.Letters, &historyv1.DeadLetter{Sequence: uint64(e.Sequence), Reason: v.DeadReason, Payload: e.Payload})
}

// remembered returns the refusal that applies to a command; nil if none does.
func (d *draft) remembered(key source.CommandKey, e *source.Message) *dedupe.Refusal {
	if known := d.refused[key]; known != nil && known.Answers(e.Command.GetAttempt(), e.TimeMs()) {
		return known
	}
	return d.world.Refusals.Find(key, e.Command.GetAttempt(), e.TimeMs())
}

// remember stores a refusal with the batch. If there is no room for the refusal, the command's outcome stays unknown,
// because a later copy might still be committed. A refusal of a command that can never be committed need not be stored.
func (d *draft) remember(r *dedupe.Refusal, v *Result) {
	if !r.Key.Committable() {
		return
	}
	if v.Unremembered = !d.world.Refusals.Fits(r.TimeMs, d.Refusals); v.Unremembered {
		return
	}
	if d.refused == nil {
		d.refused = map[source.CommandKey]*dedupe.Refusal{}
	}
	d.refused[r.Key] = r
	d.Refusals = append(d.Refusals, r.Proto())
}

// carryOut applies one command. Apply must not panic. If it panics anyway, the command becomes a dead letter, so that one
// command cannot stop a partition. Apply is pure, so a retry would panic again.
func (d *draft) carryOut(i int, key source.CommandKey, e *source.Message, v *Result) {
	before, changed := d.States[key.Conversation]
	if !changed {
		before = d.world.State(key.Conversation)
	}
	facts := d.Facts[key.Conversation]
	result, refusal, err := d.applied(before, facts, e)
	switch {
	case err != nil:
		v.DeadReason = err.Error()
		return
	case refusal != nil:
		v.Refusal = refusal
		return
	}
	v.Event = result.Event
	if facts != nil {
		facts.Add(result.Event, result.Effects)
	}
	for _, effect := range result.Effects {
		effect.Event = uint32(len(d.Events))
		d.Effects = append(d.Effects, effect)
		if erased := effect.GetEraseEvents(); erased != nil {
			if d.erased == nil {
				d.erased = map[ids.Conversation][]*historyv1.EraseEvents{}
			}
			d.erased[key.Conversation] = append(d.erased[key.Conversation], erased)
		}
	}
	d.States[key.Conversation] = result.State
	d.Events = append(d.Events, result.Event)
	d.Causes = append(d.Causes, i)
	d.Sequences = append(d.Sequences, uint64(e.Sequence))
	d.made[key] = result.Event
}

// erases reports whether a command of this batch erases the event.
func (d *draft) erases(event *conversationv1.Event) bool {
	for _, erased := range d.erased[ids.Conversation(event.GetConversationId())] {
		if conversation.Covers(erased, event) {
			return true
		}
	}
	return false
}

func (d *draft) applied(before *conversation.State, facts *conversation.Facts, e *source.Message) (result conversation.Result, refusal *conversationv1.Error, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("applying it panicked: %.200s", strings.ToValidUTF8(fmt.Sprint(r), "?"))
		}
	}()
	result, refusal = d.Apply(before, facts, e.Command, e.Body, e.TimeMs())
	return result, refusal, nil
}

// Unconfirmed returns the commands without an event that were not yet looked up in the store. They may have been
// committed before: for example, the retry of a committed create, leave or add is refused because of the state that its
// first copy produced. The first outcome takes precedence over this refusal.
func (p *Plan) Unconfirmed(messages []source.Message, known *dedupe.Facts) []source.CommandKey {
	var keys []source.CommandKey
	for i := range p.Results {
		v := &p.Results[i]
		// A repeated erasure must be detected before the append: otherwise the store's ledger would record that it erases
		// all events up to the present head.
		if v.Misplaced || (v.Event != nil && (v.Repeated || !conversation.IsErasure(messages[i].Body))) {
			continue
		}
		key := source.KeyOf(messages[i].Command)
		if _, done := known.Asked[key]; done || known.Firsts[key] != nil || !key.Committable() {
			continue
		}
		known.Asked[key] = struct{}{}
		keys = append(keys, key)
	}
	return keys
}

// Cut returns the index at which a batch must end at the latest. A batch ends after the first command that erases
// content, because only the store knows which events it erases. It ends before the first command that this build cannot
// decide.
func Cut(messages []source.Message) int {
	for i := range messages {
		switch e := &messages[i]; {
		case e.TooNew:
			return i
		case conversation.IsErasure(e.Body):
			return i + 1
		}
	}
	return len(messages)
}
