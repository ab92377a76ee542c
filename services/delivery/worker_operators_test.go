package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

func (b *bed) alive(alive *brokerv1.Alive) {
	b.t.Helper()
	data, err := alive.MarshalVT()
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Publish("ops.alive", data))
	require.NoError(b.t, b.nc.Flush())
}

func TestOperatorErases(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("secret name", "bob"))
	id := create.GetConversationId()
	b.send(create)
	b.send(deliverytest.Command(id, "ann", 2, deliverytest.Text("one")))
	b.send(deliverytest.Command(id, "bob", 3, deliverytest.Text("two")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request := &adminv1.EraseRequest{ConversationId: id, CommandId: deliverytest.CommandID(4), Erase: &conversationv1.Erase{Sender: "ann"}}
	for range 2 {
		answer, err := w.operators.Erase(ctx, request)
		require.NoError(t, err)
		require.EqualValues(t, 4, answer.GetOutcome().GetSeq())
	}
	b.store.Mu.Lock()
	require.Empty(t, b.store.Logs[id][1].GetBody())
	require.NotEmpty(t, b.store.Logs[id][2].GetBody())
	require.Equal(t, conversation.ServerUser, ids.User(b.store.Logs[id][3].GetSender()))
	b.store.Mu.Unlock()
	verified, err := w.operators.VerifyConversation(ctx, &adminv1.VerifyConversationRequest{ConversationId: id})
	require.NoError(t, err)
	require.Empty(t, verified.GetFaults())
	require.EqualValues(t, 2, verified.GetErased())
	require.EqualValues(t, 4, verified.GetChecked())

	answer, err := w.operators.Erase(ctx, &adminv1.EraseRequest{ConversationId: id, CommandId: deliverytest.CommandID(5), Erase: &conversationv1.Erase{Seqs: []uint64{99}}})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, answer.GetOutcome().GetError().GetCode())
	for field, wrong := range map[string]*adminv1.EraseRequest{
		"conversation_id": {ConversationId: "x", CommandId: deliverytest.CommandID(4), Erase: request.GetErase()},
		"command_id":      {ConversationId: id, CommandId: "x", Erase: request.GetErase()},
		"erase":           {ConversationId: id, CommandId: deliverytest.CommandID(4)},
		"erase.seqs":      {ConversationId: id, CommandId: deliverytest.CommandID(4), Erase: &conversationv1.Erase{Seqs: []uint64{2, 1}}},
	} {
		_, err := w.operators.Erase(ctx, wrong)
		require.Equal(t, codes.InvalidArgument, status.Code(err), field)
		require.Contains(t, status.Convert(err).Message(), field)
	}
}

// An event that this version cannot check is not reported as valid, and is reported differently from tampering.
func TestOperatorVerifies(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	b.send(create)
	b.send(deliverytest.Command(id, "ann", 2, deliverytest.Text("one")))
	b.send(deliverytest.Command(id, "ann", 3, deliverytest.Text("two")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	verify := func(change func(*conversationv1.Event)) []*adminv1.Fault {
		b.store.Mu.Lock()
		kept := b.store.Logs[id][1]
		changed := proto.Clone(kept).(*conversationv1.Event)
		change(changed)
		b.store.Logs[id][1] = changed
		b.store.Mu.Unlock()
		answer, err := w.operators.VerifyConversation(ctx, &adminv1.VerifyConversationRequest{ConversationId: id})
		require.NoError(t, err)
		require.EqualValues(t, 3, answer.GetChecked())
		b.store.Mu.Lock()
		b.store.Logs[id][1] = kept
		b.store.Mu.Unlock()
		return answer.GetFaults()
	}
	require.Empty(t, verify(func(*conversationv1.Event) {}))
	faults := verify(func(e *conversationv1.Event) { e.Body = nil })
	require.Len(t, faults, 1)
	require.Contains(t, faults[0].GetProblem(), "without erasing it")
	require.Len(t, verify(func(e *conversationv1.Event) {
		e.Body = deliverytest.Command("", "ann", 1, deliverytest.Text("other")).GetBody()
	}), 1)
	faults = verify(func(e *conversationv1.Event) { e.Format = 3 })
	require.Contains(t, faults[0].GetProblem(), "its format is 3")
	require.EqualValues(t, 2, faults[0].GetSeq())
}

func TestOperatorRaisesTheLevel(t *testing.T) {
	b := newBed(t, 1)
	b.store.Level = 0
	w := b.startWorker(nil)
	b.eventually("running", func() bool { return w.state(0) == "running" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	b.eventually("it has heard of itself", func() bool {
		answer, err := w.operators.GetLevel(ctx, &adminv1.GetLevelRequest{})
		require.NoError(t, err)
		return len(answer.GetParts()) == 1 && len(answer.GetMissing()) == 0 && answer.GetParts()[0].GetLevel() == uint32(conversation.MaxLevel())
	})
	_, err := w.operators.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{Level: uint32(conversation.MaxLevel()) + 1})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Contains(t, status.Convert(err).Message(), w.Name())
	_, err = w.operators.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{})
	require.Equal(t, codes.InvalidArgument, status.Code(err))

	b.alive(&brokerv1.Alive{Instance: "gw", Service: "gateway", StartedMs: time.Now().UnixMilli(), Level: 1})
	b.eventually("a silent gateway is heard of", func() bool { return len(w.fleet.Members("gateway")) == 1 })
	_, err = w.operators.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{Level: 1})
	require.Equal(t, codes.FailedPrecondition, status.Code(err))
	require.Contains(t, status.Convert(err).Message(), "gw")
	b.alive(&brokerv1.Alive{Instance: "gw", Service: "gateway", Leaving: true})
	b.eventually("it is gone", func() bool { return len(w.fleet.Members("gateway")) == 0 })
	raised, err := w.operators.RaiseLevel(ctx, &adminv1.RaiseLevelRequest{Level: 1})
	require.NoError(t, err)
	require.EqualValues(t, 1, raised.GetLevel())
	require.EqualValues(t, 1, b.store.Level)
}

func TestOperatorMarksABackup(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	b.send(deliverytest.Command("", "ann", 1, deliverytest.Group("g")))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answer, err := w.operators.MarkBackup(ctx, &adminv1.MarkBackupRequest{})
	require.NoError(t, err)
	require.Len(t, answer.GetMarks(), 1)
	require.EqualValues(t, 1, answer.GetMarks()[0].GetWatermark().GetSequence())
}

// A dead letter is retried in the next attempt, so the refusal stored with the dead letter does not apply.
func TestOperatorRetriesADeadLetter(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(func(c *Config, _ *Deps) { c.MaxTries = 1 })
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	b.send(create)
	b.store.Fail(poison, nil)
	bad := deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("poison"))
	b.putCommand(bad)
	b.resultOf(bad)
	b.store.Fail(nil, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	shown, err := w.operators.GetDeadLetter(ctx, &adminv1.GetDeadLetterRequest{DeadLetterId: "1"})
	require.NoError(t, err)
	require.Equal(t, "poison", shown.GetBody().GetMessage().GetText())
	answer, err := w.operators.RetryDeadLetter(ctx, &adminv1.RetryDeadLetterRequest{DeadLetterId: "1"})
	require.NoError(t, err)
	require.EqualValues(t, 2, answer.GetOutcome().GetSeq())
	require.Empty(t, b.store.DeadLetters())
	require.Equal(t, bad.GetBody(), b.store.Logs[create.GetConversationId()][1].GetBody())
}
