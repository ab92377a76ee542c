package plan_test

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
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// oneByOne is a simple model of the planner. It decides one command at a time, without batches and without a cache.
type oneByOne struct {
	store    *deliverytest.History
	refusals []*dedupe.Refusal // all refusals ever made
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
		// The receiver of this refusal may have other copies under way, so it must be remembered for six minutes more.
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
	result, refusal := conversation.Apply(o.store.States[string(key.Conversation)], o.facts(t, e), e.Command, e.Body, e.TimeMs())
	if refusal == nil {
		v.Event = result.Event
		o.store.Put(t, uint64(e.Sequence), result)
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

// facts requests all facts that the command needs from the store, in one call.
func (o *oneByOne) facts(t rapid.TB, e source.Message) *conversation.Facts {
	facts := conversation.NewFacts(nil)
	for _, n := range e.Needs {
		answer, err := o.store.GetFacts(context.Background(), &historyv1.GetFactsRequest{Needs: []*historyv1.Need{
			{ConversationId: e.Command.GetConversationId(), Seq: uint64(n.Seq), UserId: string(n.User)},
		}})
		require.NoError(t, err)
		for _, fact := range answer.GetFacts() {
			facts.Load(n, fact)
		}
	}
	return facts
}

// anyCommands draws commands of a few users in a few conversations. Many are repeats. Some repeats have another body or
// another attempt.
func anyCommands(t *rapid.T) []*brokerv1.Command {
	users := []string{"ann", "bob", "cid", "dan"}
	user := rapid.SampledFrom(users)
	conversations := []string{
		string(conversation.DirectID("ann", "bob")), string(conversation.GroupID("ann", ids.Command(deliverytest.CommandID(1)))), string(conversation.GroupID("bob", ids.Command(deliverytest.CommandID(2)))),
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
			body = deliverytest.React(target, rapid.SampledFrom([]string{"+1", "-1"}).Draw(t, "emoji"), rapid.Bool().Draw(t, "taken back"))
		case 13:
			body = deliverytest.Text("an answer")
			body.GetMessage().ReplyTo = target
		case 14:
			sender = string(conversation.ServerUser)
			body = rapid.SampledFrom([]*conversationv1.Body{
				deliverytest.Erase(&conversationv1.Erase{Seqs: []uint64{target}}), deliverytest.Erase(&conversationv1.Erase{Sender: "bob"}), deliverytest.Erase(&conversationv1.Erase{BeforeMs: int64(target)}),
			}).Draw(t, "erase")
		default:
			body = deliverytest.Text(rapid.SampledFrom([]string{"", "hello", "world"}).Draw(t, "text"))
		}
		commands = append(commands, deliverytest.Command(rapid.SampledFrom(conversations).Draw(t, "conversation"), sender, 100+i, body))
	}
	return commands
}

// stream puts commands into a stream. Most message times are close together, and some are minutes apart.
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

// The log, the views and the answers equal those of the model, however the stream is cut into batches and whichever
// messages are repeated.
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
				e.Sequence, e.TimeNs = last.Sequence+ids.Sequence(i)+1, last.TimeNs+int64(i)*1e6
				stream = append(stream, e)
			}
		}
		limit := rapid.SampledFrom([]int{1, 3, 1000}).Draw(t, "limit")
		plain, batched := newOneByOne(limit), session.New(limit)
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "batch")
			outcomes := batched.Do(t, rest[:n])
			for i, e := range rest[:n] {
				want := plain.do(t, e)
				require.True(t, proto.Equal(want, outcomes[i]), "message %d: want %v, got %v", e.Sequence, want, outcomes[i])
				if want.GetError() == plan.ErrUnknown && !e.Late() {
					unremembered++
				}
			}
			rest = rest[n:]
			if rapid.IntRange(0, 4).Draw(t, "new owner") == 0 && limit == 1000 {
				batched.Restart()
			}
			remembered += len(batched.Refusals.Latest)
		}
		replans += batched.Replans
		batched.Store.Verify(t) // invariants I2 and I5, and the hash chain
		plain.store.Same(t, batched.Store)
	})
	require.Positive(t, replans, "the test never met a duplicate")
	require.Positive(t, unremembered, "the test never lacked room for a refusal")
	require.Positive(t, remembered)
}
