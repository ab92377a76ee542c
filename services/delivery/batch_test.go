package delivery

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/cache"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/partition/commit"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// oneByOne is what a stream of commands must come to, in the plainest way: the meaning of the rules, without batches and
// without a cache.
type oneByOne struct {
	store    *deliverytest.History
	refusals []*dedupe.Refusal // all there ever were
	limit    int
}

func newOneByOne(limit int) *oneByOne {
	return &oneByOne{store: deliverytest.NewHistory(1), limit: limit}
}

func (o *oneByOne) do(t rapid.TB, e source.Message) *conversationv1.Outcome {
	if e.Command == nil {
		return nil
	}
	key := source.KeyOf(e.Command)
	var v plan.Result
	if first := o.store.Keys[key]; first != nil {
		v.SetRepeated(first, e.Command, false)
		return v.Outcome(e.Command)
	}
	live := 0
	var known *dedupe.Refusal
	for _, r := range slices.Backward(o.refusals) {
		if e.TimeMs()-r.TimeMs > dedupe.RefusalMemory.Milliseconds() {
			continue
		}
		live++
		if known == nil && r.Key == key && r.Attempt >= e.Command.GetAttempt() {
			known = r
		}
	}
	if known != nil {
		// Whoever receives it may have other copies on their way: it must be remembered for six minutes more.
		if v.Refusal = known.Err; e.TimeMs()-known.TimeMs > 4*60_000 {
			if v.Unremembered = live >= o.limit; !v.Unremembered {
				o.refusals = append(o.refusals, &dedupe.Refusal{Key: key, Attempt: known.Attempt, TimeMs: e.TimeMs(), Err: known.Err})
			}
		}
		return v.Outcome(e.Command)
	}
	if v.Late = e.Command.GetNotAfterMs() != 0 && e.TimeMs() > e.Command.GetNotAfterMs(); v.Late {
		return v.Outcome(e.Command)
	}
	result, refusal := conversation.Apply(o.store.States[key.Conversation], o.facts(t, e), e.Command, e.Body, e.TimeMs())
	if refusal == nil {
		v.Event = result.Event
		o.store.Put(t, e.Sequence, result)
		return v.Outcome(e.Command)
	}
	v.Refusal = refusal
	if key.Committable() {
		if v.Unremembered = live >= o.limit; !v.Unremembered {
			o.refusals = append(o.refusals, &dedupe.Refusal{Key: key, Attempt: e.Command.GetAttempt(), TimeMs: e.TimeMs(), Err: refusal})
		}
	}
	return v.Outcome(e.Command)
}

// facts asks the store for all that the command needs, at once.
func (o *oneByOne) facts(t rapid.TB, e source.Message) *conversation.Facts {
	facts := conversation.NewFacts(nil)
	for _, n := range e.Needs {
		answer, err := o.store.GetFacts(context.Background(), &historyv1.GetFactsRequest{Needs: []*historyv1.Need{
			{ConversationId: e.Command.GetConversationId(), Seq: n.Seq, UserId: n.User},
		}})
		require.NoError(t, err)
		for _, fact := range answer.GetFacts() {
			facts.Load(n, fact)
		}
	}
	return facts
}

// inBatches does with a store what a session does: load, plan, ask about refusals, append, learn of duplicates, again.
type inBatches struct {
	store    *deliverytest.History
	planner  plan.Planner
	cache    *cache.Cache
	refusals *dedupe.Refusals
	limit    int
	mark     *historyv1.Watermark
	replans  int
}

func newInBatches(limit int) *inBatches {
	b := &inBatches{
		store: deliverytest.NewHistory(1), planner: plan.Planner{Partition: 0, Partitions: 1, Apply: conversation.Apply}, limit: limit, mark: &historyv1.Watermark{},
	}
	b.forgetAndLearn()
	return b
}

// forgetAndLearn forgets everything, as a new owner knows nothing, and learns what the store has.
func (b *inBatches) forgetAndLearn() {
	b.cache, b.refusals = cache.New(1000), dedupe.NewRefusals(b.limit)
	remembered, _ := b.store.ListRefusals(context.Background(), &historyv1.ListRefusalsRequest{Limit: 1000})
	b.refusals.Load(remembered.GetRefusals(), b.mark.GetTimeNs()/1e6)
}

func (b *inBatches) world() plan.World {
	return plan.World{State: b.cache.State, Facts: b.cache.Facts, Refusals: b.refusals}
}

func (b *inBatches) load(t rapid.TB, batch []source.Message) {
	wanted := map[string]struct{}{}
	for i := range batch {
		if key := source.KeyOf(batch[i].Command); key.Committable() {
			wanted[key.Conversation] = struct{}{}
		}
	}
	ids := b.cache.Missing(nil, wanted)
	found, err := b.store.GetConversations(context.Background(), &historyv1.GetConversationsRequest{ConversationIds: ids})
	require.NoError(t, err)
	b.cache.AddLoaded(ids, found.GetConversations(), 0)
	needs := b.cache.UnknownNeeds(batch)
	if commit.BugNeedsNotLoaded {
		return
	}
	request := &historyv1.GetFactsRequest{}
	for _, n := range needs {
		request.Needs = append(request.Needs, &historyv1.Need{ConversationId: n.Conversation, Seq: n.Seq, UserId: n.User})
	}
	facts, err := b.store.GetFacts(context.Background(), request)
	require.NoError(t, err)
	require.Len(t, facts.GetFacts(), len(needs))
	b.cache.AddFacts(needs, facts.GetFacts())
}

func (b *inBatches) do(t rapid.TB, batch []source.Message) []*conversationv1.Outcome {
	var outcomes []*conversationv1.Outcome
	for len(batch) > 0 {
		n := plan.Cut(batch)
		outcomes = append(outcomes, b.commit(t, batch[:n])...)
		batch = batch[n:]
	}
	return outcomes
}

func (b *inBatches) commit(t rapid.TB, batch []source.Message) []*conversationv1.Outcome {
	b.load(t, batch)
	known := dedupe.NewFacts()
	for {
		p := b.planner.Make(batch, known, b.world())
		if keys := p.Unconfirmed(batch, known); len(keys) > 0 {
			request := &historyv1.FindCommandsRequest{}
			for _, k := range keys {
				request.Commands = append(request.Commands, k.Proto())
			}
			found, err := b.store.FindCommands(context.Background(), request)
			require.NoError(t, err)
			for _, event := range found.GetEvents() {
				known.Firsts[source.KeyOfEvent(event)] = event
			}
			if len(found.GetEvents()) > 0 {
				b.replans++
				continue
			}
		}
		last := batch[len(batch)-1]
		next := &historyv1.Watermark{Stream: "1", Sequence: last.Sequence, TimeNs: last.TimeNs}
		answer, err := b.store.Append(context.Background(), &historyv1.AppendRequest{
			Expected: b.mark, Next: next, BeginEpoch: b.mark.GetStream() == "", Events: p.Events, Sequences: p.Sequences, Effects: p.Effects,
			DeadLetters: p.Letters, Refusals: p.Refusals,
		})
		require.NoError(t, err)
		if len(answer.GetDuplicates()) > 0 {
			for _, d := range answer.GetDuplicates() {
				known.Firsts[source.KeyOfEvent(p.Events[d.GetIndex()])] = d.GetFirst()
			}
			b.replans++
			continue
		}
		next.Epoch = answer.GetEpoch()
		b.mark = next
		b.cache.ApplyCommitted(commit.ChangeOf(p), 0)
		b.refusals.Add(p.Refusals, last.TimeMs())
		outcomes := make([]*conversationv1.Outcome, len(batch))
		for i := range batch {
			if batch[i].Command != nil {
				outcomes[i] = p.Results[i].Outcome(batch[i].Command)
			}
		}
		return outcomes
	}
}

// anyCommands draws commands of a few users in a few conversations, many of them repeats, some with another body or in
// another attempt.
func anyCommands(t *rapid.T) []*brokerv1.Command {
	users := []string{"ann", "bob", "cid", "dan"}
	user := rapid.SampledFrom(users)
	conversations := []string{
		conversation.DirectID("ann", "bob"), conversation.GroupID("ann", deliverytest.CommandID(1)), conversation.GroupID("bob", deliverytest.CommandID(2)),
	}
	commands := []*brokerv1.Command{
		deliverytest.Command("", "ann", 1, deliverytest.Group("one", "bob", "cid")),
		deliverytest.Command("", "bob", 2, deliverytest.Group("two")),
		deliverytest.Command(conversations[0], "ann", 3, &conversationv1.Body{Action: &conversationv1.Body_Create{
			Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"bob"}},
		}}),
	}
	for i := range rapid.IntRange(1, 60).Draw(t, "length") {
		kind := rapid.IntRange(0, 17).Draw(t, "kind")
		if kind <= 4 {
			earlier := proto.Clone(rapid.SampledFrom(commands).Draw(t, "repeated")).(*brokerv1.Command)
			switch kind {
			case 0:
				earlier.Body = deliverytest.Command("", "ann", 1, deliverytest.Text("something else")).GetBody()
			case 1:
				earlier.Attempt = uint32(rapid.IntRange(0, 2).Draw(t, "attempt"))
			}
			commands = append(commands, earlier)
			continue
		}
		sender := user.Draw(t, "sender")
		target := uint64(rapid.IntRange(0, 12).Draw(t, "target"))
		var body *conversationv1.Body
		switch kind {
		case 5:
			body = &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{user.Draw(t, "added")}}}}
		case 6:
			body = &conversationv1.Body{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: user.Draw(t, "removed")}}}
		case 7:
			body = &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}
		case 8:
			body = &conversationv1.Body{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: rapid.SampledFrom([]string{"", "new", "newer"}).Draw(t, "name")}}}
		case 9:
			body = &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: target, Text: "edited"}}}
		case 10:
			body = &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: target}}}
		case 11, 12:
			body = react(target, rapid.SampledFrom([]string{"+1", "-1"}).Draw(t, "emoji"), rapid.Bool().Draw(t, "taken back"))
		case 13:
			body = deliverytest.Text("an answer")
			body.GetMessage().ReplyTo = target
		case 14:
			sender = conversation.ServerUser
			body = rapid.SampledFrom([]*conversationv1.Body{
				erase(&conversationv1.Erase{Seqs: []uint64{target}}), erase(&conversationv1.Erase{Sender: "bob"}), erase(&conversationv1.Erase{BeforeMs: int64(target)}),
			}).Draw(t, "erase")
		default:
			body = deliverytest.Text(rapid.SampledFrom([]string{"", "hello", "world"}).Draw(t, "text"))
		}
		commands = append(commands, deliverytest.Command(rapid.SampledFrom(conversations).Draw(t, "conversation"), sender, 100+i, body))
	}
	return commands
}

func react(target uint64, emoji string, remove bool) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_React{React: &conversationv1.React{Target: target, Emoji: emoji, Remove: remove}}}
}

func erase(e *conversationv1.Erase) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_Erase{Erase: e}}
}

// stream puts commands into a stream at times that mostly follow closely and sometimes are minutes apart.
func stream(t *rapid.T, commands []*brokerv1.Command) []source.Message {
	list := deliverytest.Messages(t, commands...)
	var ms int64
	for i := range list {
		ms++
		if rapid.IntRange(0, 9).Draw(t, "pause") == 0 {
			ms += int64(rapid.IntRange(0, 7*60_000).Draw(t, "pause of"))
		}
		list[i].TimeNs = ms * 1e6
		if rapid.IntRange(0, 3).Draw(t, "deadline") == 0 {
			list[i].Command.NotAfterMs = max(ms+int64(rapid.IntRange(-2, 1).Draw(t, "left")), 1)
		}
	}
	return list
}

// However a stream is cut into batches, and whatever of it comes a second time, the log, the views and the answers are those
// of its commands one by one.
func TestBatchesEqualOneByOne(t *testing.T) {
	replans, unremembered, remembered := 0, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		stream := stream(t, anyCommands(t))
		if rapid.Bool().Draw(t, "garbage") {
			at := rapid.IntRange(0, len(stream)-1).Draw(t, "at")
			garbage := source.Decode(stream[at].Sequence, stream[at].TimeNs, []byte{0xff})
			stream[at] = garbage
		}
		if from := rapid.IntRange(0, len(stream)-1).Draw(t, "again from"); rapid.Bool().Draw(t, "again") {
			last := stream[len(stream)-1]
			for i, e := range stream[from:] {
				e.Sequence, e.TimeNs = last.Sequence+uint64(i)+1, last.TimeNs+int64(i)*1e6
				stream = append(stream, e)
			}
		}
		limit := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "limit")
		plain, batched := newOneByOne(limit), newInBatches(limit)
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			outcomes := batched.do(t, rest[:n])
			for i, e := range rest[:n] {
				want := plain.do(t, e)
				require.True(t, proto.Equal(want, outcomes[i]), "message %d: want %v, got %v", e.Sequence, want, outcomes[i])
				if want.GetError() == plan.ErrUnknown && !e.Late() {
					unremembered++
				}
			}
			rest = rest[n:]
			if rapid.IntRange(0, 4).Draw(t, "new owner") == 0 && limit == 1000 {
				batched.forgetAndLearn()
			}
			remembered += len(batched.refusals.Latest)
		}
		replans += batched.replans
		batched.store.Verify(t) // I2, I5 and the chain
		plain.store.Same(t, batched.store)
	})
	require.Positive(t, replans, "the test never met a duplicate")
	require.Positive(t, unremembered, "the test never lacked room for a refusal")
	require.Positive(t, remembered)
}

// nothing is the world of a partition in which nothing was committed.
func nothing() plan.World {
	return plan.World{
		State: func(string) *conversation.State { return nil }, Facts: func(string) *conversation.Facts { return nil }, Refusals: dedupe.NewRefusals(1000),
	}
}

func TestRepeatInOneBatch(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	other := deliverytest.Command(id, "ann", 2, deliverytest.Text("other"))
	batch := deliverytest.Messages(t, create, deliverytest.Command(id, "ann", 2, deliverytest.Text("first")), deliverytest.Command(id, "ann", 2, deliverytest.Text("first")), other)
	p := (&plan.Planner{Partitions: 1, Apply: conversation.Apply}).Make(batch, dedupe.NewFacts(), nothing())
	require.Len(t, p.Events, 2)
	require.False(t, p.Results[1].Repeated)
	require.True(t, p.Results[2].Repeated)
	require.Same(t, p.Results[1].Event, p.Results[2].Event)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, p.Results[3].Refusal.GetCode())
}

func TestUnfitCommandsArePutAside(t *testing.T) {
	good := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	home := conversation.Partition(good.GetConversationId(), 16)
	strayID := 2
	for conversation.Partition(conversation.GroupID("ann", deliverytest.CommandID(strayID)), 16) == home {
		strayID++
	}
	batch := deliverytest.Messages(t, deliverytest.Command("", "ann", strayID, deliverytest.Group("stray")), good, deliverytest.Command(good.GetConversationId(), "ann", 900, deliverytest.Text("x")))
	batch = append(batch, source.Decode(4, 4e6, []byte("not a command")), source.Decode(5, 5e6, nil))
	known := dedupe.NewFacts()
	known.Poisoned[3] = "condemned"
	p := (&plan.Planner{Partition: home, Partitions: 16, Apply: conversation.Apply}).Make(batch, known, nothing())
	require.Len(t, p.Events, 1)
	var put []uint64
	for _, letter := range p.Letters {
		put = append(put, letter.GetSequence())
		require.NotEmpty(t, letter.GetReason())
	}
	require.Equal(t, []uint64{1, 3, 4, 5}, put)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, p.Results[0].Outcome(batch[0].Command).GetError().GetCode())
	require.Equal(t, []byte("not a command"), p.Letters[2].GetPayload())
}

func TestPanicOfOneCommandIsItsDeadLetter(t *testing.T) {
	batch := deliverytest.Messages(t, deliverytest.Command("", "ann", 1, deliverytest.Group("g")), deliverytest.Command("", "ann", 2, deliverytest.Group("boom")), deliverytest.Command("", "ann", 3, deliverytest.Group("h")))
	p := (&plan.Planner{Partitions: 1, Apply: func(s *conversation.State, f *conversation.Facts, c *brokerv1.Command, b *conversationv1.Body, at int64) (conversation.Result, *conversationv1.Error) {
		if b.GetCreate().GetName() == "boom" {
			panic("a defect")
		}
		return conversation.Apply(s, f, c, b, at)
	}}).Make(batch, dedupe.NewFacts(), nothing())
	require.Len(t, p.Events, 2)
	require.Len(t, p.Letters, 1)
	require.Equal(t, "applying it panicked: a defect", p.Results[1].DeadReason)
}

func BenchmarkPlan(b *testing.B) {
	commands := []*brokerv1.Command{deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))}
	for i := range 511 {
		commands = append(commands, deliverytest.Command(commands[0].GetConversationId(), "ann", i+2, deliverytest.Text("a message of a usual length, somewhat more than a few words")))
	}
	batch := deliverytest.Messages(b, commands...)
	p := plan.Planner{Partitions: 1, Apply: conversation.Apply}
	b.ReportAllocs()
	for b.Loop() {
		p.Make(batch, dedupe.NewFacts(), nothing())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/512, "ns/command")
}

func BenchmarkDecode(b *testing.B) {
	payload, err := deliverytest.Command(conversation.GroupID("ann", deliverytest.CommandID(1)), "ann", 2, deliverytest.Text("a message of a usual length, somewhat more than a few words")).MarshalVT()
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		e := source.Decode(1, 1e6, payload)
		_ = e
	}
}
