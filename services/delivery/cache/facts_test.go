package cache_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
)

// Facts in memory are bounded, and forgotten after an erasure.
func TestFactsAreBounded(t *testing.T) {
	b := session.New(1000)
	commands := []*brokerv1.Command{deliverytest.Command("", "ann", 1, deliverytest.Group("g"))}
	id := ids.Conversation(commands[0].GetConversationId())
	for i := range 300 {
		commands = append(commands, deliverytest.Command(string(id), "ann", 10+i, deliverytest.Text("x")))
	}
	for i := range 10 {
		commands = append(commands, deliverytest.Command(string(id), "ann", 500+i, deliverytest.React(uint64(2+i), "+1", false)))
	}
	commands = append(commands, deliverytest.Command(string(id), string(conversation.ServerUser), 600, deliverytest.Erase(&conversationv1.Erase{Sender: "ann"})), deliverytest.Command(string(id), "ann", 601, deliverytest.React(2, "-1", false)))
	list := deliverytest.Messages(t, commands...)
	b.Do(t, list[:301])
	require.Zero(t, b.Cache.Facts(id).Len())
	before := b.Cache.Weight()
	b.Do(t, list[301:306])
	require.Positive(t, b.Cache.Facts(id).Len())
	require.Equal(t, before+b.Cache.Facts(id).Len(), b.Cache.Weight(), "they count towards the capacity")
	outcomes := b.Do(t, list[306:])
	require.NotZero(t, outcomes[5].GetSeq())
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_CONFLICT, outcomes[6].GetError().GetCode(), "the message was erased before it")

	all := session.New(1000)
	all.Do(t, list[:311])
	require.Zero(t, all.Cache.Facts(id).Len(), "too many are not kept")
	require.Equal(t, 2, all.Cache.Weight())
}
