package delivery

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
)

func commandID(n int) string { return fmt.Sprintf("01890000-0000-7000-8000-%012x", n) }

func text(s string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: s}}}
}

func group(name string, members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
		Kind: conversationv1.Kind_KIND_GROUP, Name: name, Members: members,
	}}}
}

func command(id, sender string, n int, body *conversationv1.Body) *brokerv1.Command {
	if id == "" {
		id = conversation.GroupID(sender, commandID(n))
	}
	salt := make([]byte, chain.SaltSize)
	salt[0], salt[1] = byte(n), byte(n>>8)
	return &brokerv1.Command{ConversationId: id, Sender: sender, CommandId: commandID(n), Body: body, Salt: salt, Inbox: "inbox"}
}

func entries(t rapid.TB, commands ...*brokerv1.Command) []entry {
	list := make([]entry, len(commands))
	for i, c := range commands {
		payload, err := c.MarshalVT()
		require.NoError(t, err)
		list[i] = decode(uint64(i+1), int64(i+1)*1e6, payload)
	}
	return list
}

// oneByOne is what a stream of commands must come to, in the plainest way: the meaning of the rules, without batches.
type oneByOne struct {
	states map[string]*conversation.State
	firsts map[commandKey]*conversationv1.Event
	log    []*conversationv1.Event
}

func newOneByOne() *oneByOne {
	return &oneByOne{states: map[string]*conversation.State{}, firsts: map[commandKey]*conversationv1.Event{}}
}

func (o *oneByOne) do(e entry) *conversationv1.Outcome {
	var v verdict
	key := keyOf(e.command)
	switch first := o.firsts[key]; {
	case e.command == nil:
		return nil
	case first != nil:
		v.repeat(first, e.command)
	default:
		next, event, refusal := conversation.Apply(o.states[key.conversation], e.command, e.timeNs/1e6)
		if v = (verdict{event: event, refusal: refusal}); event != nil {
			o.states[key.conversation], o.firsts[key] = next, event
			o.log = append(o.log, event)
		}
	}
	return v.outcome(e.command)
}

// inBatches does with a store what a session does: plan, ask about refusals, append, learn of duplicates, again.
type inBatches struct {
	store   *fakeHistory
	planner planner
	states  map[string]*conversation.State
	mark    *historyv1.Watermark
	replans int
}

func newInBatches() *inBatches {
	return &inBatches{
		store: newFakeHistory(1), planner: planner{partition: 0, partitions: 1, apply: conversation.Apply},
		states: map[string]*conversation.State{}, mark: &historyv1.Watermark{},
	}
}

func (b *inBatches) do(t rapid.TB, batch []entry) []*conversationv1.Outcome {
	known := newKnowledge()
	for {
		p := b.planner.plan(batch, known, func(id string) *conversation.State { return b.states[id] })
		if keys := p.doubtful(batch, known); len(keys) > 0 {
			request := &historyv1.FindCommandsRequest{}
			for _, k := range keys {
				request.Commands = append(request.Commands, &historyv1.CommandKey{ConversationId: k.conversation, Sender: k.sender, CommandId: k.command})
			}
			found, err := b.store.FindCommands(context.Background(), request)
			require.NoError(t, err)
			for _, event := range found.GetEvents() {
				known.firsts[keyOfEvent(event)] = event
			}
			if len(found.GetEvents()) > 0 {
				b.replans++
				continue
			}
		}
		next := &historyv1.Watermark{Stream: "1", Sequence: b.mark.GetSequence() + uint64(len(batch))}
		answer, err := b.store.Append(context.Background(), &historyv1.AppendRequest{Expected: b.mark, Next: next, Events: p.events, DeadLetters: p.letters})
		require.NoError(t, err)
		if len(answer.GetDuplicates()) > 0 {
			for _, d := range answer.GetDuplicates() {
				known.firsts[keyOfEvent(p.events[d.GetIndex()])] = d.GetFirst()
			}
			b.replans++
			continue
		}
		b.mark = next
		maps.Copy(b.states, p.states)
		outcomes := make([]*conversationv1.Outcome, len(batch))
		for i := range batch {
			if batch[i].command != nil {
				outcomes[i] = p.verdicts[i].outcome(batch[i].command)
			}
		}
		return outcomes
	}
}

// anyCommands draws commands of a few users in a few conversations, many of them repeats, some with another body.
func anyCommands(t *rapid.T) []*brokerv1.Command {
	users := []string{"ann", "bob", "cid", "dan"}
	user := rapid.SampledFrom(users)
	conversations := []string{
		conversation.DirectID("ann", "bob"), conversation.GroupID("ann", commandID(1)), conversation.GroupID("bob", commandID(2)),
	}
	commands := []*brokerv1.Command{
		command("", "ann", 1, group("one", "bob", "cid")),
		command("", "bob", 2, group("two")),
		command(conversations[0], "ann", 3, &conversationv1.Body{Action: &conversationv1.Body_Create{
			Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"bob"}},
		}}),
	}
	for i := range rapid.IntRange(1, 60).Draw(t, "length") {
		kind := rapid.IntRange(0, 11).Draw(t, "kind")
		if kind <= 3 {
			earlier := rapid.SampledFrom(commands).Draw(t, "repeated")
			if kind == 0 {
				earlier = proto.Clone(earlier).(*brokerv1.Command)
				earlier.Body = text("something else")
			}
			commands = append(commands, earlier)
			continue
		}
		var body *conversationv1.Body
		switch kind {
		case 4, 5:
			body = &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{user.Draw(t, "added")}}}}
		case 6:
			body = &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: user.Draw(t, "removed")}}}
		case 7:
			body = &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
		case 8:
			body = &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: rapid.SampledFrom([]string{"", "new", "newer"}).Draw(t, "name")}}}
		default:
			body = text(rapid.SampledFrom([]string{"", "hello", "world"}).Draw(t, "text"))
		}
		commands = append(commands, command(rapid.SampledFrom(conversations).Draw(t, "conversation"), user.Draw(t, "sender"), 100+i, body))
	}
	return commands
}

// However a stream is cut into batches, and whatever of it comes a second time, the log and the answers are those of its
// commands one by one.
func TestBatchesEqualOneByOne(t *testing.T) {
	replans := 0
	rapid.Check(t, func(t *rapid.T) {
		stream := entries(t, anyCommands(t)...)
		if rapid.Bool().Draw(t, "garbage") {
			at := rapid.IntRange(0, len(stream)-1).Draw(t, "at")
			stream[at].command, stream[at].payload = nil, []byte{0xff}
		}
		if from := rapid.IntRange(0, len(stream)-1).Draw(t, "again from"); rapid.Bool().Draw(t, "rewound") {
			stream = append(stream, stream[from:]...)
		}
		plain, batched := newOneByOne(), newInBatches()
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			outcomes := batched.do(t, rest[:n])
			for i, e := range rest[:n] {
				want := plain.do(e)
				require.True(t, proto.Equal(want, outcomes[i]), "message %d: want %v, got %v", e.sequence, want, outcomes[i])
			}
			rest = rest[n:]
			if rapid.IntRange(0, 4).Draw(t, "new owner") == 0 {
				batched.states = batched.store.states
			}
		}
		replans += batched.replans
		batched.store.verify(t) // I2, I5 and the chain
		require.Len(t, batched.store.keys, len(plain.log))
		for _, event := range plain.log { // I1, I3, I4
			require.True(t, proto.Equal(event, batched.store.keys[keyOfEvent(event)]))
		}
	})
	require.Positive(t, replans, "the test never met a duplicate")
}

func TestRepeatInOneBatch(t *testing.T) {
	create := command("", "ann", 1, group("g", "bob"))
	id := create.GetConversationId()
	other := command(id, "ann", 2, text("other"))
	batch := entries(t, create, command(id, "ann", 2, text("first")), command(id, "ann", 2, text("first")), other)
	p := (&planner{partitions: 1, apply: conversation.Apply}).plan(batch, newKnowledge(), func(string) *conversation.State { return nil })
	require.Len(t, p.events, 2)
	require.False(t, p.verdicts[1].repeated)
	require.True(t, p.verdicts[2].repeated)
	require.Same(t, p.verdicts[1].event, p.verdicts[2].event)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, p.verdicts[3].refusal.GetCode())
}

func TestUnfitCommandsArePutAside(t *testing.T) {
	good := command("", "ann", 1, group("g"))
	home := conversation.Partition(good.GetConversationId(), 16)
	strayID := 2
	for conversation.Partition(conversation.GroupID("ann", commandID(strayID)), 16) == home {
		strayID++
	}
	batch := entries(t, command("", "ann", strayID, group("stray")), good, good)
	batch = append(batch, decode(4, 4e6, []byte("not a command")), decode(5, 5e6, nil))
	known := newKnowledge()
	known.condemned[3] = "condemned"
	p := (&planner{partition: home, partitions: 16, apply: conversation.Apply}).plan(batch, known, func(string) *conversation.State { return nil })
	require.Len(t, p.events, 1)
	var put []uint64
	for _, letter := range p.letters {
		put = append(put, letter.GetSequence())
		require.NotEmpty(t, letter.GetReason())
	}
	require.Equal(t, []uint64{1, 3, 4, 5}, put)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, p.verdicts[0].outcome(batch[0].command).GetError().GetCode())
	require.Equal(t, []byte("not a command"), p.letters[2].GetPayload())
}

func TestPanicOfOneCommandIsItsDeadLetter(t *testing.T) {
	batch := entries(t, command("", "ann", 1, group("g")), command("", "ann", 2, group("boom")), command("", "ann", 3, group("h")))
	p := (&planner{partitions: 1, apply: func(s *conversation.State, c *brokerv1.Command, at int64) (*conversation.State, *conversationv1.Event, *conversationv1.Error) {
		if c.GetBody().GetCreate().GetName() == "boom" {
			panic("a defect")
		}
		return conversation.Apply(s, c, at)
	}}).plan(batch, newKnowledge(), func(string) *conversation.State { return nil })
	require.Len(t, p.events, 2)
	require.Len(t, p.letters, 1)
	require.Equal(t, "applying it panicked: a defect", p.verdicts[1].dead)
}

func BenchmarkPlan(b *testing.B) {
	commands := []*brokerv1.Command{command("", "ann", 1, group("g", "bob"))}
	for i := range 511 {
		commands = append(commands, command(commands[0].GetConversationId(), "ann", i+2, text("a message of a usual length, somewhat more than a few words")))
	}
	batch := entries(b, commands...)
	p := planner{partitions: 1, apply: conversation.Apply}
	b.ReportAllocs()
	for b.Loop() {
		p.plan(batch, newKnowledge(), func(string) *conversation.State { return nil })
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/command")
}
