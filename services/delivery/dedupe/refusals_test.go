package dedupe

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/services/delivery/deliverytest"
	"github.com/runnelhq/runnel/services/delivery/source"
)

var refused = &conversationv1.Error{Code: conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN}

// Of refusals that are remembered the one of the highest attempt counts; one that is too old does not.
func TestWhichRefusalHolds(t *testing.T) {
	key := source.CommandKey{Conversation: conversation.GroupID("ann", deliverytest.CommandID(1)), Sender: "eve", Command: deliverytest.CommandID(2)}
	at := func(attempt uint32, minute int64) *historyv1.Refusal {
		return (&Refusal{Key: key, Attempt: attempt, TimeMs: minute * 60_000, Err: refused}).Proto()
	}
	r := NewRefusals(10)
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
