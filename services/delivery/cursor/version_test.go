package cursor_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/services/delivery/cursor"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// The version of receipts rises with whatever happens, over takeovers too, and needs no clock.
func TestReceiptVersionsRise(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g", "bob", "cid"))
	id := ids.Conversation(create.GetConversationId())
	b := session.New(1000)
	var last *conversationv1.Receipt
	check := func() {
		stored := b.Cache.Cursors(id)
		table := cursor.TableOf(len(stored), func(i int) (ids.User, cursor.Position) {
			return ids.User(stored[i].GetUserId()), cursor.PositionOf(stored[i])
		})
		r := cursor.ReceiptOf(id, &table, b.Cache.State(id).Head)
		if last != nil {
			require.True(t, r.GetVersion() > last.GetVersion() || proto.Equal(r, last), "%v after %v", r, last)
		}
		last = r
	}
	n := 1
	do := func(sender string, body *conversationv1.Body) {
		n++
		c := deliverytest.Command(string(id), sender, n, body)
		if n == 2 {
			c = create
		}
		payload, err := c.MarshalVT()
		require.NoError(t, err)
		b.Do(t, []source.Message{source.Decode(ids.Sequence(n), int64(n)*1e6, payload)})
		check()
	}
	read := func(user string, seq uint64) {
		b.Cache.Acknowledge([]*brokerv1.Ack{{ConversationId: string(id), UserId: user, ReadSeq: seq}}, 1)
		check()
		b.Store.Cursors[deliverytest.CursorKey{Conversation: id, User: ids.User(user)}] = &conversationv1.Cursor{UserId: user, DeliveredSeq: seq, ReadSeq: seq}
	}
	for round := range 20 {
		do("ann", deliverytest.Text("x"))
		head := b.Cache.State(id).Head
		read("bob", uint64(head))
		read("cid", uint64(head-1))
		read("cid", uint64(head))
		do("bob", &conversationv1.Body{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}})
		do("ann", deliverytest.Add("bob"))
		if round%3 == 0 {
			// What is in memory and was told is stored; the next owner knows it from there.
			for user, at := range b.Cursors(id) {
				b.Store.Cursors[deliverytest.CursorKey{Conversation: id, User: user}] = &conversationv1.Cursor{UserId: string(user), DeliveredSeq: uint64(at.Delivered), ReadSeq: uint64(at.Read)}
			}
			b.Restart()
			b.Load(t, deliverytest.Messages(t, deliverytest.Command(string(id), "ann", 999, deliverytest.Text("y"))))
			check()
		}
	}
}
