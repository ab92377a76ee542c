package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/dedupe"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/deliverytest/session"
	"github.com/runnelhq/runnel/services/delivery/partition/plan"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// nothing returns the world of a partition without commits.
func nothing() plan.World {
	return plan.World{
		State: func(ids.Conversation) *conversation.State { return nil }, Facts: func(ids.Conversation) *conversation.Facts { return nil }, Refusals: dedupe.NewRefusals(1000),
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
	home := conversation.Partition(ids.Conversation(good.GetConversationId()), 16)
	strayID := 2
	for conversation.Partition(conversation.GroupID("ann", ids.Command(deliverytest.CommandID(strayID))), 16) == home {
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

// A plain message needs no memory for facts that later commands may refer to.
func TestPlainMessagesKeepNoFacts(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	batch := deliverytest.Messages(t, create, deliverytest.Command(create.GetConversationId(), "ann", 2, deliverytest.Text("hi")))
	p := (&plan.Planner{Partitions: 1, Apply: conversation.Apply}).Make(batch, dedupe.NewFacts(), nothing())
	require.Nil(t, p.Facts)
	require.Len(t, p.Effects, 3, "those of the create")
}

// If another command of the batch erases a body, the body can no longer conflict. The result is the same if the batch is
// cut between the two commands.
func TestErasedInTheSameBatchCannotConflict(t *testing.T) {
	create := deliverytest.Command("", "ann", 1, deliverytest.Group("g"))
	id := create.GetConversationId()
	remove := &conversationv1.Body{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: 2}}}
	list := deliverytest.Messages(t, create, deliverytest.Command(id, "ann", 2, deliverytest.Text("one")), deliverytest.Command(id, "ann", 2, deliverytest.Text("two")), deliverytest.Command(id, "ann", 3, remove), deliverytest.Command(id, "ann", 2, deliverytest.Text("two")))
	outcomes := session.New(1000).Do(t, list)
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, outcomes[2].GetError().GetCode())
	require.EqualValues(t, 2, outcomes[4].GetSeq())
	require.True(t, outcomes[4].GetRepeated())
}
