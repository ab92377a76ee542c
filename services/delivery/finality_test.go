package delivery

import (
	"bytes"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

func add(members ...string) *conversationv1.Body {
	return &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: members}}}
}

// sendOnce sends a command that was never answered before, and forgets what was told until then.
func (b *bed) sendOnce(c *brokerv1.Command) *conversationv1.Outcome {
	b.forget()
	return b.send(c)
}

// A copy of a refused command that comes later does not find a member, until the sender asks again on purpose.
func TestRefusalIsFinalOverTakeovers(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	b.send(create)
	hello := deliverytest.Command(id, "eve", 2, deliverytest.Text("hello"))
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.send(hello).GetError().GetCode())
	require.EqualValues(t, 2, b.send(deliverytest.Command(id, "ann", 3, add("eve"))).GetSeq())
	for range 2 {
		b.forget()
		b.putCommand(hello) // another gateway's copy
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.resultOf(hello).GetError().GetCode())
		w.stop()
		b.forget()
		w = b.startWorker(nil)
		// The new owner tells the refusal again, too.
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.resultOf(hello).GetError().GetCode())
	}
	require.Equal(t, 1, w.count("refusals_remembered"))
	again := proto.CloneOf(hello)
	again.Attempt, again.Salt = 1, bytes.Repeat([]byte{1}, chain.SaltSize)
	require.EqualValues(t, 3, b.sendOnce(again).GetSeq())
	b.forget()
	b.putCommand(hello)
	require.EqualValues(t, 3, b.resultOf(hello).GetSeq(), "committed before wins over the remembered refusal")
	b.store.Verify(t)
}

// A refusal is told once the append that remembers it is committed, also when the batch holds nothing else.
func TestRefusalIsStoredBeforeItIsTold(t *testing.T) {
	b := newBed(t, 1)
	b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	appended := make(chan *historyv1.AppendRequest, 1)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open() // a test that fails must not leave the worker waiting
	b.store.Fail(func(in *historyv1.AppendRequest) error {
		appended <- in
		<-gate
		return nil
	}, nil)
	refused := deliverytest.Command(create.GetConversationId(), "eve", 2, deliverytest.Text("x"))
	b.forget()
	b.putCommand(refused)
	in := <-appended
	require.Empty(t, in.GetEvents())
	require.Len(t, in.GetRefusals(), 1)
	require.Equal(t, deliverytest.CommandID(2), in.GetRefusals()[0].GetCommand().GetCommandId())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, in.GetRefusals()[0].GetError().GetCode())
	require.NoError(t, b.nc.Flush())
	b.mu.Lock()
	told := slices.ContainsFunc(b.results, func(r *brokerv1.Result) bool { return r.GetOutcome().GetCommandId() == deliverytest.CommandID(2) })
	b.mu.Unlock()
	require.False(t, told)
	b.store.Fail(nil, nil)
	open()
	b.resultOf(refused)
}

// A dead letter is a refusal as well: a copy is not carried out, and put aside only once.
func TestDeadLetterIsFinal(t *testing.T) {
	b := newBed(t, 1)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	w := b.startWorker(func(c *Config, _ *Deps) { c.MaxTries = 1 })
	b.send(create)
	b.store.Fail(poison, nil)
	bad := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("poison"))
	b.putCommand(bad)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, b.resultOf(bad).GetError().GetCode())
	b.store.Fail(nil, nil)
	b.forget()
	b.putCommand(bad)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_DEAD_LETTERED, b.resultOf(bad).GetError().GetCode())
	require.Len(t, b.store.DeadLetters(), 1)
	bad.Attempt, bad.Salt = 1, bytes.Repeat([]byte{1}, chain.SaltSize)
	require.EqualValues(t, 2, b.sendOnce(bad).GetSeq())
	require.Equal(t, 4, w.count("commands_total"))
}

// A copy that enters the stream too late is not carried out, and that is no refusal.
func TestLateCopyIsUnknown(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	late := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("late"))
	late.AdmittedMs = time.Now().Add(-3 * time.Minute).UnixMilli()
	late.NotAfterMs = time.Now().Add(-time.Minute).UnixMilli()
	b.putCommand(late)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, b.resultOf(late).GetError().GetCode())
	require.Equal(t, 1, w.count("clock_skew_commands_total"))
	require.Zero(t, w.count("refusals_remembered"))
	require.EqualValues(t, 2, b.sendOnce(late).GetSeq(), "asked again, it is carried out")
	late.NotAfterMs = 1
	b.forget()
	b.putCommand(late)
	require.EqualValues(t, 2, b.resultOf(late).GetSeq(), "committed before wins over too late")
}

// Without room to remember a refusal nothing is promised.
func TestNoRoomForRefusals(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(func(c *Config, _ *Deps) { c.MaxRefusals = 1 })
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	b.send(create)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.send(deliverytest.Command(id, "eve", 2, deliverytest.Text("x"))).GetError().GetCode())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, b.send(deliverytest.Command(id, "eve", 3, deliverytest.Text("x"))).GetError().GetCode())
	require.Equal(t, 1, w.count("refusals_unremembered_total"))
	require.Len(t, b.store.Refusals, 1)
}

// Commands that refer to messages find them: in memory, in the store, and in their own batch.
func TestNeedsAreLoaded(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	b.send(create)
	b.send(deliverytest.Command(id, "ann", 2, deliverytest.Text("hello"))) // seq 2
	edit := &conversationv1.Body{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{Target: 2, Text: "hello, all"}}}
	require.EqualValues(t, 3, b.send(deliverytest.Command(id, "ann", 3, edit)).GetSeq())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, b.send(deliverytest.Command(id, "bob", 4, edit)).GetError().GetCode())
	require.EqualValues(t, 4, b.send(deliverytest.Command(id, "bob", 5, react(2, "+1", false))).GetSeq())
	asked := b.asked()
	require.EqualValues(t, 5, b.send(deliverytest.Command(id, "bob", 6, react(2, "+1", true))).GetSeq())
	require.Equal(t, asked, b.asked(), "what is in memory is not asked for")
	w.stop()
	b.startWorker(nil)
	remove := &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 2}}}
	require.EqualValues(t, 6, b.send(deliverytest.Command(id, "ann", 7, remove)).GetSeq())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_CONFLICT, b.send(deliverytest.Command(id, "bob", 8, react(2, "+1", false))).GetError().GetCode())
	b.store.Mu.Lock()
	require.Empty(t, b.store.Logs[id][1].GetBody(), "erased in the append's transaction")
	require.Empty(t, b.store.Logs[id][2].GetBody(), "its edit, too")
	require.EqualValues(t, 6, b.store.Views[id].Rows[2].GetDeletedSeq())
	b.store.Mu.Unlock()
	b.store.Verify(t)
}

func (b *bed) asked() int {
	b.store.Mu.Lock()
	defer b.store.Mu.Unlock()
	return b.store.Asked
}

// A plain message costs nothing for what others may refer to.
func TestPlainMessagesKeepNoFacts(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	batch := deliverytest.Messages(t, create, deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("hi")))
	p := (&plan.Planner{Partitions: 1, Apply: conversation.Apply}).Make(batch, dedupe.NewFacts(), nothing())
	require.Nil(t, p.Facts)
	require.Len(t, p.Effects, 3, "those of the create")
}

// Facts in memory are bounded, and forgotten after an erasure.
func TestFactsAreBounded(t *testing.T) {
	b := newInBatches(1000)
	commands := []*brokerv1.Command{deliverytest.Command("", "ann", 1, deliverytest.Group("g"))}
	id := commands[0].GetConversationId()
	for i := range 300 {
		commands = append(commands, deliverytest.Command(id, "ann", 10+i, deliverytest.Text("x")))
	}
	for i := range 10 {
		commands = append(commands, deliverytest.Command(id, "ann", 500+i, react(uint64(2+i), "+1", false)))
	}
	commands = append(commands, deliverytest.Command(id, conversation.ServerUser, 600, erase(&conversationv1.Erase{Sender: "ann"})), deliverytest.Command(id, "ann", 601, react(2, "-1", false)))
	list := deliverytest.Messages(t, commands...)
	b.do(t, list[:301])
	require.Zero(t, b.cache.Facts(id).Len())
	before := b.cache.Weight()
	b.do(t, list[301:306])
	require.Positive(t, b.cache.Facts(id).Len())
	require.Equal(t, before+b.cache.Facts(id).Len(), b.cache.Weight(), "they count towards the capacity")
	outcomes := b.do(t, list[306:])
	require.NotZero(t, outcomes[5].GetSeq())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_CONFLICT, outcomes[6].GetError().GetCode(), "the message was erased before it")

	all := newInBatches(1000)
	all.do(t, list[:311])
	require.Zero(t, all.cache.Facts(id).Len(), "too many are not kept")
	require.Equal(t, 2, all.cache.Weight())
}

// A body that is erased by another command of the same batch cannot conflict any more, as it could not had the batch been cut
// between them.
func TestErasedInTheSameBatchCannotConflict(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	remove := &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 2}}}
	list := deliverytest.Messages(t, create, deliverytest.Command(id, "ann", 2, deliverytest.Text("one")), deliverytest.Command(id, "ann", 2, deliverytest.Text("two")), deliverytest.Command(id, "ann", 3, remove), deliverytest.Command(id, "ann", 2, deliverytest.Text("two")))
	outcomes := newInBatches(1000).do(t, list)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, outcomes[2].GetError().GetCode())
	require.EqualValues(t, 2, outcomes[4].GetSeq())
	require.True(t, outcomes[4].GetRepeated())
}

// Of refusals that are remembered the one of the highest attempt counts; one that is too old does not.
func TestWhichRefusalHolds(t *testing.T) {
	key := source.CommandKey{Conversation: conversation.GroupID("ann", deliverytest.CommandID(1)), Sender: "eve", Command: deliverytest.CommandID(2)}
	at := func(attempt uint32, minute int64) *historyv1.Refusal {
		return (&dedupe.Refusal{Key: key, Attempt: attempt, TimeMs: minute * 60_000, Err: plan.ErrDeadLettered}).Proto()
	}
	r := dedupe.NewRefusals(10)
	r.Add([]*historyv1.Refusal{at(1, 0)}, 0)
	require.NotNil(t, r.Find(key, 0, 0))
	require.NotNil(t, r.Find(key, 1, 10*60_000))
	require.Nil(t, r.Find(key, 2, 0))
	require.Nil(t, r.Find(key, 1, 10*60_000+1))
	require.False(t, r.Find(key, 1, 0).Stale(4*60_000))
	require.True(t, r.Find(key, 1, 0).Stale(4*60_000+1))

	r.Add([]*historyv1.Refusal{at(0, 11)}, 0) // still in memory, but too old when the other one is added
	require.EqualValues(t, 0, r.Find(key, 0, 12*60_000).Attempt)
	r.Add(nil, 60*60_000)
	require.Zero(t, r.Size())
	require.Empty(t, r.Latest)

	r.Load([]*historyv1.Refusal{at(3, 9), at(2, 5)}, 9*60_000)
	require.EqualValues(t, 3, r.Find(key, 2, 9*60_000).Attempt)
	require.True(t, r.Fits(9*60_000, nil))
	r.Limit = 2
	require.False(t, r.Fits(9*60_000, nil))
	require.True(t, r.Fits(16*60_000, nil), "one is too old by then")
	require.False(t, r.Fits(16*60_000, []*historyv1.Refusal{at(1, 15)}))
}
