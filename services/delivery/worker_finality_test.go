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
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// sendOnce discards all received messages and sends a command.
func (b *bed) sendOnce(c *brokerv1.Command) *conversationv1.Outcome {
	b.forget()
	return b.send(c)
}

// A refused sender becomes a member. A late copy of the refused command is still refused. The command succeeds only in a
// new attempt of the sender.
func TestRefusalIsFinalOverTakeovers(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	b.send(create)
	hello := deliverytest.Command(id, "eve", 2, deliverytest.Text("hello"))
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.send(hello).GetError().GetCode())
	require.EqualValues(t, 2, b.send(deliverytest.Command(id, "ann", 3, deliverytest.Add("eve"))).GetSeq())
	for range 2 {
		b.forget()
		b.putCommand(hello) // a copy from another gateway
		require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, b.resultOf(hello).GetError().GetCode())
		w.stop()
		b.forget()
		w = b.startWorker(nil)
		// The new owner publishes the refusal again.
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

// A refusal is published only after the append that remembers it is committed, also if the batch contains nothing else.
func TestRefusalIsStoredBeforeItIsTold(t *testing.T) {
	b := newBed(t, 1)
	b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	appended := make(chan *historyv1.AppendRequest, 1)
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	defer open() // a failing test must not leave the worker waiting
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

// A dead letter counts as a refusal: a copy is not carried out, and only one dead letter is stored.
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

// A copy that enters the stream too late is not carried out. Its outcome is unknown, which is not a refusal.
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

// If there is no room to remember a refusal, the outcome is unknown.
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

// Commands that refer to messages find the messages in memory, in the store, and in the same batch.
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
	require.EqualValues(t, 4, b.send(deliverytest.Command(id, "bob", 5, deliverytest.React(2, "+1", false))).GetSeq())
	asked := b.asked()
	require.EqualValues(t, 5, b.send(deliverytest.Command(id, "bob", 6, deliverytest.React(2, "+1", true))).GetSeq())
	require.Equal(t, asked, b.asked(), "what is in memory is not asked for")
	w.stop()
	b.startWorker(nil)
	remove := &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 2}}}
	require.EqualValues(t, 6, b.send(deliverytest.Command(id, "ann", 7, remove)).GetSeq())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_CONFLICT, b.send(deliverytest.Command(id, "bob", 8, deliverytest.React(2, "+1", false))).GetError().GetCode())
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
