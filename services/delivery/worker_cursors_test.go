package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

func (b *bed) acknowledge(partition int, acks ...*brokerv1.Ack) {
	b.t.Helper()
	data, err := (&brokerv1.Acks{Acks: acks}).MarshalVT()
	require.NoError(b.t, err)
	require.NoError(b.t, b.nc.Publish(broker.AckSubject(ids.Partition(partition)), data))
}

// at returns how many members the newest receipt of a conversation counts at seq or above. Callers hold mu.
func (b *bed) at(id string, seq uint64) (delivered, read uint32) {
	for _, r := range b.receipts {
		if r.GetConversationId() == id {
			delivered, read = membersAt(r.GetDelivered(), seq), membersAt(r.GetRead(), seq)
		}
	}
	return delivered, read
}

// membersAt counts as Receipt documents it: the members of the last step that is not below seq.
func membersAt(steps []*conversationv1.Step, seq uint64) (n uint32) {
	for _, step := range steps {
		if step.GetSeq() >= seq {
			n = step.GetMembers()
		}
	}
	return n
}

func TestAcknowledgementsBecomeCursorsAndReceipts(t *testing.T) {
	b := newBed(t, 1)
	w := b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob", "cid"))
	id := ids.Conversation(create.GetConversationId())
	b.send(create)
	b.send(deliverytest.Command(string(id), "ann", 2, deliverytest.Text("hello")))
	b.await("the sender has what they sent", func() bool { d, r := b.at(string(id), 2); return d == 1 && r == 1 })

	b.acknowledge(0, &brokerv1.Ack{ConversationId: string(id), UserId: "bob", DeliveredSeq: 2})
	b.await("delivered to 2 of 3", func() bool { d, r := b.at(string(id), 2); return d == 2 && r == 1 })
	b.acknowledge(0,
		&brokerv1.Ack{ConversationId: string(id), UserId: "cid", ReadSeq: 99},                 // above the head
		&brokerv1.Ack{ConversationId: string(id), UserId: "bob", DeliveredSeq: 1},             // below the current cursor
		&brokerv1.Ack{ConversationId: string(id), UserId: "eve", ReadSeq: 2, DeliveredSeq: 2}, // not a member
		&brokerv1.Ack{ConversationId: "nonsense", UserId: "bob", ReadSeq: 2, DeliveredSeq: 2}, // not a conversation id
	)
	b.await("delivered to 3, read by 2", func() bool { d, r := b.at(string(id), 2); return d == 3 && r == 2 })
	require.EqualValues(t, 2, b.store.Cursor(id, "cid").GetReadSeq())
	require.EqualValues(t, 2, b.store.Cursor(id, "cid").GetDeliveredSeq(), "what was read was received")
	require.NotZero(t, b.store.Cursor(id, "cid").GetReadTimeMs())
	require.EqualValues(t, 2, b.store.Cursor(id, "bob").GetDeliveredSeq())
	require.Zero(t, b.store.Cursor(id, "eve").GetDeliveredSeq())
	require.Equal(t, 1, w.count("acks_dropped_total"))

	// A new owner loads the cursors from the store. The acknowledgement makes it load the conversation.
	w.stop()
	b.forget()
	w = b.startWorker(nil)
	b.eventually("taken over", func() bool { return w.state(0) == "running" })
	b.acknowledge(0, &brokerv1.Ack{ConversationId: string(id), UserId: "bob", ReadSeq: 2})
	b.await("read by 3 of 3", func() bool { d, r := b.at(string(id), 2); return d == 3 && r == 3 })
	b.mu.Lock()
	defer b.mu.Unlock()
	last := int64(0)
	for _, r := range b.receipts {
		require.Greater(t, r.GetVersion(), last)
		require.EqualValues(t, 3, r.GetMembers())
		last = r.GetVersion()
	}
}

func TestMembersComeAndGoInReceipts(t *testing.T) {
	b := newBed(t, 1)
	b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	id := create.GetConversationId()
	members := func(n uint32) func() bool {
		return func() bool { return len(b.receipts) > 0 && b.receipts[len(b.receipts)-1].GetMembers() == n }
	}
	b.send(create)
	b.await("two", members(2))
	b.send(deliverytest.Command(id, "ann", 2, &conversationv1.Body{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: []string{"cid"}}}}))
	b.await("three", members(3))
	b.send(deliverytest.Command(id, "bob", 3, &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}}))
	b.await("two again", members(2))
}

// Cursors whose flush failed are published only after a later flush has stored them.
func TestFailedFlushIsTriedAgain(t *testing.T) {
	b := newBed(t, 1)
	tries, told := 0, 0
	b.store.Saving = func(*historyv1.SaveCursorsRequest) error {
		if tries++; tries <= 3 {
			b.mu.Lock()
			told += len(b.receipts)
			b.mu.Unlock()
			return status.Error(codes.Unavailable, "away")
		}
		return nil
	}
	b.startWorker(nil)
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob"))
	b.send(create)
	b.await("the receipt", func() bool { d, _ := b.at(create.GetConversationId(), 1); return d == 1 })
	require.Zero(t, told)
	require.EqualValues(t, 1, b.store.Cursor(ids.Conversation(create.GetConversationId()), "ann").GetReadSeq())
}
