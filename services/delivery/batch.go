package delivery

import (
	"fmt"
	"strings"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
)

// entry is one message of a partition's stream.
type entry struct {
	sequence uint64
	timeNs   int64 // the broker's
	// command is nil when the payload cannot be decoded.
	command *brokerv1.Command
	payload []byte
	// traceparent is the W3C trace context the message came with; empty for most.
	traceparent string
}

// commandKey identifies a command for as long as its conversation lives.
type commandKey struct{ conversation, sender, command string }

func keyOf(command *brokerv1.Command) commandKey {
	return commandKey{command.GetConversationId(), command.GetSender(), command.GetCommandId()}
}

func keyOfEvent(event *conversationv1.Event) commandKey {
	return commandKey{event.GetConversationId(), event.GetSender(), event.GetCommandId()}
}

// committable reports whether a command with this key can have been committed; the store refuses to look for others.
func (k commandKey) committable() bool {
	return conversation.ValidID(k.conversation) && conversation.ValidUser(k.sender) && conversation.ValidCommandID(k.command)
}

// verdict is what becomes of one command: exactly one of event, refusal and dead is set.
type verdict struct {
	event    *conversationv1.Event
	repeated bool // event was there before this command
	refusal  *conversationv1.Error
	dead     string // why the command is put aside
}

// plan is what a batch of commands comes to. It holds for the states it was made on and changes nothing by itself.
type plan struct {
	// verdicts are in the order of the entries.
	verdicts []verdict
	// events are the new events in stream order; causes[i] is the index of the entry that events[i] came of.
	events []*conversationv1.Event
	causes []int
	// letters are the commands to put aside.
	letters []*historyv1.DeadLetter
	// states are the states of the conversations that change, as they are after the batch.
	states map[string]*conversation.State
}

// knowledge is what is known about commands of a batch beyond the conversations' states. It grows while the batch is
// tried: the store names duplicates, and commands that it does not take are condemned.
type knowledge struct {
	firsts    map[commandKey]*conversationv1.Event
	condemned map[uint64]string // by stream sequence: why
	looked    map[commandKey]struct{}
}

func newKnowledge() *knowledge {
	return &knowledge{
		firsts:    map[commandKey]*conversationv1.Event{},
		condemned: map[uint64]string{},
		looked:    map[commandKey]struct{}{},
	}
}

// planner makes plans for one partition. It is pure: the same entries, knowledge and states give the same plan.
//
// A batch comes to the same log as its commands one by one, wherever batches are cut: a repeat of a command that was
// committed, in this batch or long ago, gets the first outcome, and a repeat of one that was refused is tried again.
type planner struct {
	partition, partitions int
	apply                 func(*conversation.State, *brokerv1.Command, int64) (*conversation.State, *conversationv1.Event, *conversationv1.Error)
}

func (p *planner) plan(entries []entry, known *knowledge, state func(id string) *conversation.State) *plan {
	result := &plan{
		verdicts: make([]verdict, len(entries)),
		events:   make([]*conversationv1.Event, 0, len(entries)),
		causes:   make([]int, 0, len(entries)),
		states:   make(map[string]*conversation.State, min(len(entries), 64)),
	}
	made := make(map[commandKey]*conversationv1.Event, len(entries))
	for i := range entries {
		e, v := &entries[i], &result.verdicts[i]
		if v.dead = p.unfit(e, known); v.dead != "" {
			result.letters = append(result.letters, &historyv1.DeadLetter{Sequence: e.sequence, Reason: v.dead, Payload: e.payload})
			continue
		}
		key := keyOf(e.command)
		first := known.firsts[key]
		if first == nil {
			first = made[key]
		}
		if first != nil {
			v.repeat(first, e.command)
			continue
		}
		before, changed := result.states[key.conversation]
		if !changed {
			before = state(key.conversation)
		}
		after, err := p.carryOut(before, e, v)
		switch {
		case err != nil:
			v.dead = err.Error()
			result.letters = append(result.letters, &historyv1.DeadLetter{Sequence: e.sequence, Reason: v.dead, Payload: e.payload})
		case v.event != nil:
			result.states[key.conversation] = after
			result.events = append(result.events, v.event)
			result.causes = append(result.causes, i)
			made[key] = v.event
		}
	}
	return result
}

// unfit says why a message cannot be applied at all; empty for nearly every one.
func (p *planner) unfit(e *entry, known *knowledge) string {
	switch {
	case e.command == nil:
		return "the payload is not a command"
	case conversation.Partition(e.command.GetConversationId(), p.partitions) != p.partition:
		return "the conversation belongs to another partition"
	}
	return known.condemned[e.sequence]
}

// carryOut applies one command. Apply is total by contract; should it panic all the same, one command must not stop a
// partition. It is pure, so there is no point in trying again.
func (p *planner) carryOut(before *conversation.State, e *entry, v *verdict) (after *conversation.State, err error) {
	defer func() {
		if r := recover(); r != nil {
			*v = verdict{}
			after, err = nil, fmt.Errorf("applying it panicked: %.200s", strings.ToValidUTF8(fmt.Sprint(r), "?"))
		}
	}()
	after, v.event, v.refusal = p.apply(before, e.command, e.timeNs/1e6)
	return after, nil
}

// repeat answers a command with the outcome that its first copy had.
func (v *verdict) repeat(first *conversationv1.Event, command *brokerv1.Command) {
	if conversation.Conflicts(first, command.GetBody()) {
		v.refusal = &conversationv1.Error{
			Code:    conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT,
			Field:   "command_id",
			Message: "the command id was used before with another body; choose a new id for a new command",
		}
		return
	}
	v.event, v.repeated = first, true
}

// doubtful names the refused commands that nobody has asked the store about: a retry of a committed create, leave or
// add looks refused by the state that it led to itself.
func (p *plan) doubtful(entries []entry, known *knowledge) []commandKey {
	var keys []commandKey
	for i := range p.verdicts {
		if p.verdicts[i].refusal == nil {
			continue
		}
		key := keyOf(entries[i].command)
		if _, done := known.looked[key]; done || known.firsts[key] != nil || !key.committable() {
			continue
		}
		known.looked[key] = struct{}{}
		keys = append(keys, key)
	}
	return keys
}

// outcome is the verdict in the words of the protocol.
func (v *verdict) outcome(command *brokerv1.Command) *conversationv1.Outcome {
	outcome := &conversationv1.Outcome{ConversationId: command.GetConversationId(), CommandId: command.GetCommandId()}
	switch {
	case v.event != nil:
		outcome.Seq, outcome.TimeMs, outcome.Repeated = v.event.GetSeq(), v.event.GetTimeMs(), v.repeated
	case v.refusal != nil:
		outcome.Error = v.refusal
	default:
		outcome.Error = &conversationv1.Error{
			Code:    conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED,
			Message: "the command could not be carried out and was put aside for an operator",
		}
	}
	return outcome
}
