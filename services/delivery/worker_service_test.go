package delivery

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

var testTime = time.Unix(1_790_000_000, 0)

func TestSubmitForServices(t *testing.T) {
	b := newBed(t, 4)
	w := b.startWorker(nil)
	b.eventually("running", func() bool { return w.state(3) == "running" })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	answer, err := w.Submit(ctx, &deliveryv1.SubmitRequest{Sender: "ann", CommandId: deliverytest.CommandID(1), Body: &conversationv1.Body{
		Action: &conversationv1.Body_Create{Create: &conversationv1.Create{Kind: conversationv1.Kind_KIND_DIRECT, Members: []string{"bob"}}},
	}})
	require.NoError(t, err)
	id := conversation.DirectID("ann", "bob")
	require.Equal(t, id, ids.Conversation(answer.GetOutcome().GetConversationId()))
	answer, err = w.Submit(ctx, &deliveryv1.SubmitRequest{Sender: "bob", ConversationId: string(id), CommandId: deliverytest.CommandID(2), Body: deliverytest.Text("hi")})
	require.NoError(t, err)
	require.EqualValues(t, 2, answer.GetOutcome().GetSeq())
	answer, err = w.Submit(ctx, &deliveryv1.SubmitRequest{Sender: "eve", ConversationId: string(id), CommandId: deliverytest.CommandID(3), Body: deliverytest.Text("hi")})
	require.NoError(t, err)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, answer.GetOutcome().GetError().GetCode())
	b.store.Verify(t)

	partitions, err := w.ListPartitions(ctx, &deliveryv1.ListPartitionsRequest{})
	require.NoError(t, err)
	require.Len(t, partitions.GetPartitions(), 4)
	require.NotEmpty(t, partitions.GetWorker())

	w.stop()
	_, err = w.Submit(ctx, &deliveryv1.SubmitRequest{Sender: "bob", ConversationId: string(id), CommandId: deliverytest.CommandID(4), Body: deliverytest.Text("hi")})
	require.Equal(t, codes.Unavailable, status.Code(err))
	require.Error(t, w.Check(ctx))
}

func TestSubmitNamesTheBadField(t *testing.T) {
	id := conversation.DirectID("ann", "bob")
	for field, request := range map[string]*deliveryv1.SubmitRequest{
		"sender":            {Sender: "a.b", ConversationId: string(id), CommandId: deliverytest.CommandID(1), Body: deliverytest.Text("x")},
		"command_id":        {Sender: "ann", ConversationId: string(id), CommandId: "1", Body: deliverytest.Text("x")},
		"body":              {Sender: "ann", ConversationId: string(id), CommandId: deliverytest.CommandID(1)},
		"body.message.text": {Sender: "ann", ConversationId: string(id), CommandId: deliverytest.CommandID(1), Body: deliverytest.Text("")},
		"conversation_id":   {Sender: "ann", ConversationId: "live.>", CommandId: deliverytest.CommandID(1), Body: deliverytest.Text("x")},
	} {
		_, err := commandOf(request)
		require.Equal(t, codes.InvalidArgument, status.Code(err))
		require.Contains(t, status.Convert(err).Message(), field)
	}
	_, err := commandOf(&deliveryv1.SubmitRequest{Sender: "ann", ConversationId: string(id), CommandId: deliverytest.CommandID(1), Body: deliverytest.Group("g")})
	require.ErrorContains(t, err, "conversation_id")
}

// The broker is restarted. Accepted commands are committed and published.
func TestBrokerRestart(t *testing.T) {
	b := newBed(t, 2)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	require.EqualValues(t, 1, b.send(create).GetSeq())
	for round := range 2 {
		b.server.Shutdown()
		b.server.WaitForShutdown()
		b.eventually("the worker notices", func() bool { return w.Check(t.Context()) != nil })
		b.startServer()
		require.EqualValues(t, 2+round, b.send(deliverytest.Command(create.GetConversationId(), "ann", 10+round, deliverytest.Text("x"))).GetSeq())
	}
	b.awaitEvent(create.GetConversationId(), 3)
	b.store.Verify(t)
}

func TestConfiguration(t *testing.T) {
	b := newBed(t, 1)
	_, err := New(Config{MaxBatch: 5000}, Deps{NATS: b.nc, Broker: b.brokerConfig(), History: b.store})
	require.ErrorContains(t, err, "max-batch")
	_, err = New(Config{}, Deps{NATS: b.nc, History: b.store})
	require.ErrorContains(t, err, "partitions")
	name := workerName("pod-1.ns/é")
	require.True(t, conversation.ValidUser(name), name)
	require.NotEqual(t, name, workerName("pod-1.ns/é"))
}
