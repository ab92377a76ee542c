package cursor

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// A cursor goes to the store and comes back as it was.
func TestPositionSurvivesTheStore(t *testing.T) {
	at := Position{Delivered: 7, Read: 5, DeliveredTimeMs: 70, ReadTimeMs: 50}
	stored := at.Proto("ann")
	require.True(t, proto.Equal(&conversationv1.Cursor{UserId: "ann", DeliveredSeq: 7, DeliveredTimeMs: 70, ReadSeq: 5, ReadTimeMs: 50}, stored))
	require.Equal(t, at, PositionOf(stored))
}

// A cursor moves forward, up to the head. Reading implies having received.
func TestAdvance(t *testing.T) {
	from := Position{Delivered: 5, Read: 3, DeliveredTimeMs: 50, ReadTimeMs: 30}
	for name, c := range map[string]struct {
		delivered, read uint64
		want            Position
	}{
		"received more":                  {7, 0, Position{7, 3, 99, 30}},
		"read more":                      {0, 4, Position{5, 4, 50, 99}},
		"read what it received":          {5, 5, Position{5, 5, 50, 99}},
		"read what it had not received":  {0, 8, Position{8, 8, 99, 99}},
		"both":                           {8, 6, Position{8, 6, 99, 99}},
		"received up to the head":        {11, 0, Position{10, 3, 99, 30}},
		"read up to the head":            {0, 11, Position{10, 10, 99, 99}},
		"nothing":                        {0, 0, from},
		"the same":                       {5, 3, from},
		"received less, read less":       {4, 2, from},
		"received less, and read more":   {4, 4, Position{5, 4, 50, 99}},
		"received more, although it did": {6, 3, Position{6, 3, 99, 30}},
	} {
		at := from
		require.Equal(t, c.want != from, at.Advance(ids.Seq(c.delivered), ids.Seq(c.read), 10, 99), name)
		require.Equal(t, c.want, at, name)
	}
}

// Whatever is acknowledged in whatever order: no cursor falls, none passes the head, and none has read more than it received.
func TestAdvanceOnlyMovesForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var at Position
		head := ids.Seq(0)
		for range rapid.IntRange(1, 50).Draw(t, "acknowledgements") {
			head += ids.Seq(rapid.Uint64Range(0, 3).Draw(t, "grown"))
			before := at
			moved := at.Advance(ids.Seq(rapid.Uint64Range(0, 200).Draw(t, "delivered")), ids.Seq(rapid.Uint64Range(0, 200).Draw(t, "read")), head, 1)
			require.Equal(t, before != at, moved)
			require.GreaterOrEqual(t, at.Delivered, before.Delivered)
			require.GreaterOrEqual(t, at.Read, before.Read)
			require.LessOrEqual(t, at.Delivered, head)
			require.LessOrEqual(t, at.Read, at.Delivered)
		}
	})
}

// Moves hold only what moved; newer ones replace older ones, so they stay bounded.
func TestMoves(t *testing.T) {
	m := NewMoves()
	cursors := map[ids.User]Position{"ann": {Delivered: 3, Read: 2}, "bob": {Delivered: 1}}
	m.Add("g", tableOf(cursors, "ann"), 3)
	m.Add("h", tableOf(cursors, "bob"), 3)
	require.Equal(t, map[Key]Position{{"g", "ann"}: {Delivered: 3, Read: 2}, {"h", "bob"}: {Delivered: 1}}, m.Cursors)
	require.Len(t, m.Receipts, 2)
	require.EqualValues(t, 2, m.Receipts["g"].GetMembers(), "a receipt counts all members")
	cursors["ann"] = Position{Delivered: 4, Read: 4}
	m.Add("g", tableOf(cursors, "ann"), 4)
	require.Len(t, m.Cursors, 2)
	require.Equal(t, Position{Delivered: 4, Read: 4}, m.Cursors[Key{"g", "ann"}])
	require.True(t, proto.Equal(ReceiptOf("g", tableOf(cursors), 4), m.Receipts["g"]))
	m.Add("i", tableOf(cursors), 4)
	require.Len(t, m.Cursors, 2, "a receipt without a move: a member joined or left")
	require.Len(t, m.Receipts, 3)
}
