package cursor

import (
	"testing"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// Each step counts the members whose cursor is at it or above.
func TestStepsCountTheMembersAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cursors := rapid.SliceOfN(rapid.Uint64Range(0, 60), 0, 100).Draw(t, "cursors")
		at := map[ids.Seq]uint32{}
		for _, seq := range cursors {
			at[ids.Seq(seq)]++
		}
		steps := stepsOf(at)
		require.LessOrEqual(t, len(steps), maxSteps)
		for i, step := range steps {
			require.NotZero(t, step.GetSeq())
			if i > 0 {
				require.Less(t, step.GetSeq(), steps[i-1].GetSeq())
			}
			var n uint32
			for _, seq := range cursors {
				if seq >= step.GetSeq() {
					n++
				}
			}
			require.Equal(t, n, step.GetMembers())
		}
	})
}

// A receipt says how many members have received and read each seq or more, and contains no names.
func TestReceiptOf(t *testing.T) {
	r := ReceiptOf("g", tableOf(map[ids.User]Position{
		"ann": {Delivered: 9, Read: 9}, "bob": {Delivered: 9, Read: 4}, "cid": {Delivered: 4}, "dan": {},
	}), 9)
	require.True(t, proto.Equal(&conversationv1.Receipt{
		ConversationId: "g", Members: 4,
		Delivered: []*conversationv1.Step{{Seq: 9, Members: 2}, {Seq: 4, Members: 3}},
		Read:      []*conversationv1.Step{{Seq: 9, Members: 1}, {Seq: 4, Members: 2}},
		Version:   9 + 9 + 9 + 4 + 4 + 9*10,
	}, r), "%v", r)
	empty := ReceiptOf("g", &Table{}, 0)
	require.True(t, proto.Equal(&conversationv1.Receipt{ConversationId: "g"}, empty), "%v", empty)
}

// Of many steps the highest are kept.
func TestStepsAreBounded(t *testing.T) {
	for _, n := range []uint64{maxSteps, maxSteps + 1, 1000} {
		at := map[ids.Seq]uint32{}
		for seq := range n {
			at[ids.Seq(seq+1)] = 1
		}
		steps := stepsOf(at)
		require.Len(t, steps, maxSteps)
		require.Equal(t, n, steps[0].GetSeq())
		require.EqualValues(t, maxSteps, steps[maxSteps-1].GetMembers())
	}
}

// A member who leaves takes a cursor away, yet the version rises: the head has risen.
func TestVersionRisesWhenAMemberLeaves(t *testing.T) {
	for head := ids.Seq(1); head < 200; head++ {
		full := Position{Delivered: head, Read: head}
		before := ReceiptOf("g", tableOf(map[ids.User]Position{"ann": full, "bob": full}), head)
		after := ReceiptOf("g", tableOf(map[ids.User]Position{"ann": full}), (head + 1))
		require.Greater(t, after.GetVersion(), before.GetVersion())
	}
}
