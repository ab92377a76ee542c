package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

const (
	notFound = conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND
	minute   = 60_000 // in milliseconds of stream time
)

var (
	create  = deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	group   = ids.Conversation(create.GetConversationId())
	planner = plan.Planner{Partitions: 1, Apply: conversation.Apply}
	sorry   = &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}
)

func text(n int, s string) *brokerv1.Command {
	return deliverytest.Command(string(group), "ann", n, deliverytest.Text(s))
}

// created is a session in which the group exists.
func created(t *testing.T) *session.Session {
	t.Helper()
	s := session.New(1000)
	require.Nil(t, s.Do(t, deliverytest.Messages(t, create))[0].GetError())
	return s
}

// at returns a command as a stream message with a time.
func at(t *testing.T, c *brokerv1.Command, timeMs int64) source.Message {
	t.Helper()
	e := deliverytest.Messages(t, c)[0]
	e.Sequence, e.TimeNs = 50, timeMs*1e6
	return e
}

// The first applicable line of the planner's table decides, whatever the later lines say.
func TestPrecedence(t *testing.T) {
	const (
		committed = 1 << iota
		remembered
		late
		poisoned
	)
	first := &conversationv1.Event{ConversationId: string(group), Seq: 9, Sender: "ann", CommandId: deliverytest.CommandID(2), Body: text(2, "x").GetBody()}
	for facts := range 16 {
		s := created(t)
		known := dedupe.NewFacts()
		c := text(2, "x")
		if facts&committed != 0 {
			known.Firsts[source.KeyOf(c)] = first
		}
		if facts&remembered != 0 {
			s.Refusals.Add([]*historyv1.Refusal{(&dedupe.Refusal{Key: source.KeyOf(c), TimeMs: 1, Err: sorry}).Proto()}, 1)
		}
		if facts&late != 0 {
			c.NotAfterMs = 1
		}
		if facts&poisoned != 0 {
			known.Poisoned[50] = "poison"
		}
		p := planner.Make([]source.Message{at(t, c, 2)}, known, s.World())
		v := &p.Results[0]
		switch {
		case facts&committed != 0:
			require.Equal(t, &plan.Result{Event: first, Repeated: true}, v)
			require.Empty(t, p.Events)
			require.Empty(t, p.Refusals)
		case facts&remembered != 0:
			require.Equal(t, plan.Result{Refusal: v.Refusal, Remembered: true}, *v)
			require.True(t, proto.Equal(sorry, v.Refusal))
			require.Empty(t, p.Refusals)
		case facts&late != 0:
			require.Equal(t, &plan.Result{Late: true}, v)
			require.Empty(t, p.Refusals, "it is no refusal")
		case facts&poisoned != 0:
			require.Equal(t, &plan.Result{DeadReason: "poison"}, v)
			require.Len(t, p.Letters, 1)
			require.Len(t, p.Refusals, 1, "a dead letter is final")
		default:
			require.False(t, v.Repeated)
			require.EqualValues(t, 2, v.Event.GetSeq())
		}
		require.Equal(t, v.Event != nil && !v.Repeated, len(p.Events) == 1)
		require.Equal(t, v.DeadReason != "", len(p.Letters) == 1)
	}
}

// An event comes with its cause, its position, its effects and the state after it; the world is not changed.
func TestCarriedOut(t *testing.T) {
	s := created(t)
	before := s.Cache.State(group)
	batch := deliverytest.Messages(t, deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x")), text(3, "a"), deliverytest.Command("", "bob", 4, deliverytest.Group("h")), text(5, "b"))
	p := planner.Make(batch, dedupe.NewFacts(), s.World())
	require.Equal(t, []int{1, 2, 3}, p.Causes)
	require.Equal(t, []uint64{2, 3, 4}, p.Sequences)
	for i, cause := range p.Causes {
		require.Same(t, p.Events[i], p.Results[cause].Event)
	}
	require.EqualValues(t, 2, p.Events[0].GetSeq())
	require.EqualValues(t, 3, p.Events[2].GetSeq(), "on top of the first of the batch")
	require.NotEmpty(t, p.Effects)
	for _, effect := range p.Effects {
		require.EqualValues(t, 1, effect.GetEvent(), "those of the create, which is the second event")
	}
	require.Len(t, p.States, 2)
	require.EqualValues(t, 3, p.States[group].Head)
	require.Same(t, before, s.Cache.State(group))
	require.EqualValues(t, 1, before.Head)
	require.Equal(t, notFound, p.Results[0].Refusal.GetCode())
}

// A refusal is stored with everything that a later copy needs, with the stream's time.
func TestRefusalIsRemembered(t *testing.T) {
	s := created(t)
	c := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	c.Attempt = 3
	p := planner.Make([]source.Message{at(t, c, 7)}, dedupe.NewFacts(), s.World())
	require.Len(t, p.Refusals, 1)
	commitment := chain.Commitment(c.GetSalt(), c.GetBody())
	require.True(t, proto.Equal(&historyv1.Refusal{
		Command: source.KeyOf(c).Proto(), Attempt: 3, TimeMs: 7, Error: p.Results[0].Refusal, Commitment: commitment[:],
	}, p.Refusals[0]))
	require.False(t, p.Results[0].Remembered)
	require.Zero(t, s.Refusals.Size(), "the world is not changed")
}

// A copy in the same batch gets the refusal of the copy before it; one in a higher attempt is decided by itself.
func TestRefusalInTheSameBatch(t *testing.T) {
	s := created(t)
	c := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	again := proto.CloneOf(c)
	again.Attempt = 1
	added := deliverytest.Command(string(group), "ann", 3, deliverytest.Add("eve"))
	batch := deliverytest.Messages(t, c, added, c, again, c)
	p := planner.Make(batch, dedupe.NewFacts(), s.World())
	require.Equal(t, notFound, p.Results[0].Refusal.GetCode())
	require.True(t, p.Results[2].Remembered)
	require.Same(t, p.Results[0].Refusal, p.Results[2].Refusal)
	require.NotNil(t, p.Results[3].Event)
	require.True(t, p.Results[4].Repeated, "committed before takes precedence")
	require.Len(t, p.Refusals, 1)
}

// A refusal of the batch is too old for a copy ten minutes later in the same batch.
func TestRefusalOfTheBatchIsTooOld(t *testing.T) {
	s := created(t)
	c := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	for ms, remembered := range map[int64]bool{10*minute + 1: true, 10*minute + 2: false} {
		p := planner.Make([]source.Message{at(t, c, 1), at(t, c, ms)}, dedupe.NewFacts(), s.World())
		require.Equal(t, remembered, p.Results[1].Remembered)
		require.Len(t, p.Refusals, 2)
	}
}

// A refusal that answers a copy is stored again once it is old, under the time of the copy and the attempt of the refusal.
func TestStaleRefusalIsStoredAgain(t *testing.T) {
	s := created(t)
	c := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	s.Refusals.Add([]*historyv1.Refusal{(&dedupe.Refusal{Key: source.KeyOf(c), Attempt: 2, TimeMs: 0, Err: sorry, Commitment: []byte{1}}).Proto()}, 0)
	p := planner.Make([]source.Message{at(t, c, 4*minute)}, dedupe.NewFacts(), s.World())
	require.True(t, p.Results[0].Remembered)
	require.Empty(t, p.Refusals)
	p = planner.Make([]source.Message{at(t, c, 4*minute+1), at(t, c, 4*minute+2)}, dedupe.NewFacts(), s.World())
	require.Len(t, p.Refusals, 1, "once for the batch")
	require.EqualValues(t, 4*minute+1, p.Refusals[0].GetTimeMs())
	require.EqualValues(t, 2, p.Refusals[0].GetAttempt())
	require.Equal(t, []byte{1}, p.Refusals[0].GetCommitment())
	require.True(t, p.Results[1].Remembered)
	require.EqualValues(t, 0, s.Refusals.Latest[source.KeyOf(c)].TimeMs, "the one in memory is not changed")
}

// Without room to remember a refusal, the outcome stays unknown. This includes dead letters and refusals that must be
// stored again.
func TestWithoutRoom(t *testing.T) {
	s := created(t)
	c := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	s.Refusals.Add([]*historyv1.Refusal{(&dedupe.Refusal{Key: source.KeyOf(c), TimeMs: 0, Err: sorry}).Proto()}, 0)
	s.Refusals.Limit = 1
	known := dedupe.NewFacts()
	dead := text(3, "x")
	known.Poisoned[51] = "poison"
	batch := []source.Message{at(t, c, 5*minute), at(t, dead, 5*minute), at(t, deliverytest.Command(string(group), "eve", 4, deliverytest.Text("x")), 5*minute), at(t, text(5, "x"), 5*minute)}
	batch[1].Sequence = 51
	p := planner.Make(batch, known, s.World())
	require.Empty(t, p.Refusals)
	require.Len(t, p.Letters, 1)
	for i := range 3 {
		require.True(t, p.Results[i].Unremembered)
		require.Same(t, plan.ErrUnknown, p.Results[i].Err())
	}
	require.NotNil(t, p.Results[3].Event, "what is carried out needs no room")
}

// A command that can never be committed is refused, and its refusal need not be remembered.
func TestNothingToRememberOfWhatCannotBeCommitted(t *testing.T) {
	s := created(t)
	s.Refusals.Limit = 0
	bad := text(2, "x")
	bad.CommandId = "1"
	p := planner.Make([]source.Message{at(t, bad, 1)}, dedupe.NewFacts(), s.World())
	require.NotNil(t, p.Results[0].Refusal)
	require.False(t, p.Results[0].Unremembered)
	require.Empty(t, p.Refusals)
}

// A message that is not a command of this partition always becomes a dead letter, and is not remembered.
func TestMisplaced(t *testing.T) {
	s := created(t)
	over := at(t, text(2, "x"), 1)
	over.Overstated = true
	forged := at(t, text(3, "x"), 2)
	forged.Forged = true
	for name, e := range map[string]source.Message{"payload": source.Decode(50, 1e6, []byte{0xff}), "level": over, "forged": forged} {
		p := planner.Make([]source.Message{e}, dedupe.NewFacts(), s.World())
		require.True(t, p.Results[0].Misplaced, name)
		require.Contains(t, p.Letters[0].GetReason(), name)
		require.Equal(t, e.Payload, p.Letters[0].GetPayload())
		require.EqualValues(t, 50, p.Letters[0].GetSequence())
		require.Empty(t, p.Refusals)
		require.Empty(t, p.Unconfirmed([]source.Message{e}, dedupe.NewFacts()))
	}
	stray := plan.Planner{Partition: 1, Partitions: 2, Apply: conversation.Apply}
	if conversation.Partition(group, 2) == 1 {
		stray.Partition = 0
	}
	p := stray.Make([]source.Message{at(t, text(2, "x"), 1)}, dedupe.NewFacts(), s.World())
	require.Contains(t, p.Results[0].DeadReason, "another partition")
}

// References of a command are resolved in memory and in the same batch. The facts of the batch form their own layer.
func TestFactsOfABatch(t *testing.T) {
	s := created(t)
	react := func(n int, target uint64) *brokerv1.Command {
		return deliverytest.Command(string(group), "bob", n, deliverytest.React(target, "+1", false))
	}
	batch := deliverytest.Messages(t, text(2, "x"), react(3, 2), react(4, 2), react(5, 9))
	base := conversation.NewFacts(nil)
	asked := 0
	w := s.World()
	w.Facts = func(id ids.Conversation) *conversation.Facts {
		require.Equal(t, group, id)
		asked++
		return base
	}
	p := planner.Make(batch, dedupe.NewFacts(), w)
	require.Equal(t, 1, asked, "one layer for a conversation")
	require.Len(t, p.Facts, 1)
	require.Len(t, p.Events, 2)
	require.NotNil(t, p.Results[2].Refusal, "the same reaction, which the batch has added")
	require.NotNil(t, p.Results[3].Refusal, "no such message")
	require.Zero(t, base.Len(), "what is in memory is not changed")
	require.Positive(t, p.Facts[group].Len())
}

// Commands without an event, and erasures, are looked up once each.
func TestUnconfirmed(t *testing.T) {
	s := created(t)
	refused := deliverytest.Command(string(group), "eve", 2, deliverytest.Text("x"))
	late := text(3, "x")
	late.NotAfterMs = 1
	bad := text(4, "x")
	bad.CommandId = "1"
	erase := deliverytest.Command(string(group), string(conversation.ServerUser), 5, deliverytest.Erase(&conversationv1.Erase{Sender: "bob"}))
	batch := []source.Message{
		at(t, refused, 5), at(t, late, 5), at(t, bad, 5), at(t, text(6, "x"), 5), at(t, text(6, "x"), 5), at(t, erase, 5), source.Decode(51, 5e6, nil), at(t, refused, 5),
		at(t, text(6, "another body"), 5),
	}
	known := dedupe.NewFacts()
	keys := planner.Make(batch, known, s.World()).Unconfirmed(batch, known)
	require.Equal(t, []source.CommandKey{source.KeyOf(refused), source.KeyOf(late), source.KeyOf(erase), source.KeyOf(text(6, ""))}, keys)
	require.Len(t, known.Asked, 4)
	require.Empty(t, planner.Make(batch, known, s.World()).Unconfirmed(batch, known), "they were asked for")

	// A command that is known to be committed is not looked up, even if its answer is a conflict.
	known = dedupe.NewFacts()
	known.Firsts[source.KeyOf(refused)] = &conversationv1.Event{ConversationId: string(group), Sender: "eve", CommandId: refused.GetCommandId(), Body: text(1, "other").GetBody()}
	batch = batch[:1]
	p := planner.Make(batch, known, s.World())
	require.NotNil(t, p.Results[0].Refusal)
	require.Empty(t, p.Unconfirmed(batch, known))

	// A repeated erasure is not looked up either.
	erasure := batch[:0:0]
	erasure = append(erasure, at(t, erase, 5))
	known = dedupe.NewFacts()
	known.Firsts[source.KeyOf(erase)] = &conversationv1.Event{ConversationId: string(group), Sender: string(conversation.ServerUser), CommandId: erase.GetCommandId(), Body: erase.GetBody()}
	require.Empty(t, planner.Make(erasure, known, s.World()).Unconfirmed(erasure, known))
}

// A batch ends after an erasure, and before a command that this build cannot decide.
func TestCut(t *testing.T) {
	plain, newer := at(t, text(2, "x"), 1), at(t, text(2, "x"), 1)
	newer.TooNew = true
	erasure := at(t, deliverytest.Command(string(group), string(conversation.ServerUser), 5, deliverytest.Erase(&conversationv1.Erase{Sender: "bob"})), 1)
	both := erasure
	both.TooNew = true
	for name, c := range map[string]struct {
		batch []source.Message
		cut   int
	}{
		"plain":           {[]source.Message{plain, plain}, 2},
		"nothing":         {nil, 0},
		"erasure":         {[]source.Message{plain, erasure, plain}, 2},
		"erasure first":   {[]source.Message{erasure, erasure}, 1},
		"newer":           {[]source.Message{plain, newer, plain}, 1},
		"newer first":     {[]source.Message{newer, erasure}, 0},
		"a newer erasure": {[]source.Message{plain, both}, 1},
	} {
		require.Equal(t, c.cut, plan.Cut(c.batch), name)
	}
}

// A body that an erasure of the batch covers cannot conflict. Bodies of other conversations, and bodies that the erasure
// does not cover, still can.
func TestWhatIsErasedCannotConflict(t *testing.T) {
	for target, conflicts := range map[uint64]bool{2: false, 3: true} {
		remove := &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}}
		outcomes := created(t)
		list := deliverytest.Messages(t, text(2, "one"), text(3, "two"), deliverytest.Command(string(group), "ann", 4, remove), text(2, "another body"))
		for i := range list {
			list[i].Sequence += 10
		}
		answers := outcomes.Do(t, list)
		require.Equal(t, conflicts, answers[3].GetError().GetCode() == conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT)
	}
}

// The answer to a command follows from its result.
func TestOutcome(t *testing.T) {
	c := text(2, "x")
	event := &conversationv1.Event{Seq: 7, TimeMs: 70}
	for name, v := range map[string]struct {
		result plan.Result
		want   *conversationv1.Outcome
	}{
		"committed":           {plan.Result{Event: event}, &conversationv1.Outcome{Seq: 7, TimeMs: 70}},
		"repeated":            {plan.Result{Event: event, Repeated: true}, &conversationv1.Outcome{Seq: 7, TimeMs: 70, Repeated: true}},
		"refused":             {plan.Result{Refusal: sorry}, &conversationv1.Outcome{Error: sorry}},
		"late":                {plan.Result{Late: true}, &conversationv1.Outcome{Error: plan.ErrUnknown}},
		"refused, no room":    {plan.Result{Refusal: sorry, Unremembered: true}, &conversationv1.Outcome{Error: plan.ErrUnknown}},
		"dead letter":         {plan.Result{DeadReason: "x"}, &conversationv1.Outcome{Error: plan.ErrDeadLettered}},
		"dead letter no room": {plan.Result{DeadReason: "x", Unremembered: true}, &conversationv1.Outcome{Error: plan.ErrUnknown}},
	} {
		v.want.ConversationId, v.want.CommandId = string(group), c.GetCommandId()
		require.True(t, proto.Equal(v.want, v.result.Outcome(c)), name)
	}
}

// The text of a panic is cut, and is valid UTF-8 whatever it contains.
func TestPanicText(t *testing.T) {
	p := plan.Planner{Partitions: 1, Apply: func(*conversation.State, *conversation.Facts, *brokerv1.Command, *conversationv1.Body, int64) (conversation.Result, *conversationv1.Error) {
		panic("\xff" + string(make([]byte, 1000)))
	}}
	v := p.Make([]source.Message{at(t, text(2, "x"), 1)}, dedupe.NewFacts(), nothing()).Results[0]
	require.Contains(t, v.DeadReason, "panicked: ?")
	require.Less(t, len(v.DeadReason), 300)
}
