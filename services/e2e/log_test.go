package e2e_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// encoded is a body as a gateway admits it.
func encoded(t *testing.T, body *conversationv1.Body) []byte {
	t.Helper()
	bytes, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	return bytes
}

// worker makes the log of one conversation as a delivery worker does, in partition 0.
type worker struct {
	t     *testing.T
	id    string
	state *conversation.State
	facts *conversation.Facts
	// sequence is that of the last command.
	sequence uint64
}

func newWorker(t *testing.T) *worker {
	t.Helper()
	return &worker{t: t, facts: conversation.NewFacts(nil)}
}

// apply carries out one more command, which must be allowed, as part of an append. The watermark after it is set.
func (w *worker) apply(sender string, body *conversationv1.Body, timeMs int64, batch *historyv1.AppendRequest) *conversationv1.Event {
	w.t.Helper()
	w.sequence++
	command := &brokerv1.Command{
		ConversationId: w.id, Sender: sender, CommandId: fmt.Sprintf("0192f3c0-0000-7000-8000-%012x", w.sequence),
		Body: encoded(w.t, body), Salt: make([]byte, chain.SaltSize),
	}
	if create := body.GetCreate(); create != nil {
		w.id = string(conversation.CreateID(ids.User(sender), ids.Command(command.GetCommandId()), create))
		command.ConversationId = w.id
	}
	result, refusal := conversation.Apply(w.state, w.facts, command, body, timeMs)
	require.Nil(w.t, refusal)
	w.state = result.State
	w.facts.Add(result.Event, result.Effects)
	for _, effect := range result.Effects {
		effect.Event = uint32(len(batch.GetEvents()))
		batch.Effects = append(batch.Effects, effect)
	}
	batch.Events = append(batch.Events, result.Event)
	batch.Sequences = append(batch.Sequences, w.sequence)
	batch.Next = &historyv1.Watermark{Stream: "1", Sequence: w.sequence, TimeNs: int64(w.sequence)}
	return result.Event
}
