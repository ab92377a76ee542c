package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
)

func emojis(f *Facts, need Need) (list []string) {
	for _, r := range f.reactionsOf(need) {
		list = append(list, r.GetEmoji())
	}
	return list
}

func put(target, seq uint64, user, emoji string) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_PutReaction{PutReaction: &historyv1.Reaction{Target: target, Seq: seq, UserId: user, Emoji: emoji}}}
}

func dropped(target, seq uint64) *historyv1.Effect {
	return &historyv1.Effect{Effect: &historyv1.Effect_DropReactions{DropReactions: &historyv1.DropReactions{Target: target, Seq: seq}}}
}

// Lookups in facts continue in their base. Writes never change the base until the facts are merged.
func TestFactsOverABase(t *testing.T) {
	ann := Need{Seq: 1, User: "ann"}
	base := NewFacts(nil)
	base.Load(ann, &historyv1.Fact{Kind: aMessage, Sender: "bob", Reactions: []*historyv1.Reaction{{Target: 1, Seq: 2, UserId: "ann", Emoji: "+1"}}})
	require.Equal(t, 2, base.Len())
	require.True(t, base.Knows(ann))
	require.True(t, base.Knows(Need{Seq: 1}))
	require.False(t, base.Knows(Need{Seq: 1, User: "bob"}), "his reactions were not loaded")
	require.False(t, base.Knows(Need{Seq: 2}))
	require.False(t, base.Knows(Need{Seq: 2, User: "ann"}))

	batch := NewFacts(base)
	require.Zero(t, batch.Len())
	require.True(t, batch.Knows(ann))
	batch.Add(&conversationv1.Event{Seq: 3, Kind: aMessage, Sender: "ann", Body: []byte("x")}, []*historyv1.Effect{
		put(1, 3, "ann", "o"), {Effect: &historyv1.Effect_PutMessage{PutMessage: &historyv1.MessageRow{Seq: 1, EditSeq: 3}}},
	})
	require.Equal(t, []string{"+1", "o"}, emojis(batch, ann))
	require.Equal(t, []string{"+1"}, emojis(base, ann))
	require.EqualValues(t, 3, batch.event(1).Row.GetEditSeq())
	require.Zero(t, base.event(1).Row.GetEditSeq())
	require.False(t, batch.event(3).Erased)
	require.Equal(t, ids.User("bob"), batch.event(1).Sender)

	batch.Add(&conversationv1.Event{Seq: 4}, []*historyv1.Effect{dropped(1, 2)})
	require.Equal(t, []string{"o"}, emojis(batch, ann), "one of them")
	require.Equal(t, []string{"+1"}, emojis(base, ann))
	require.True(t, batch.event(4).Erased, "it has no body")
	batch.Add(&conversationv1.Event{Seq: 5}, []*historyv1.Effect{dropped(1, 0), dropped(1, 9), dropped(2, 3)})
	require.Equal(t, []string{"o"}, emojis(batch, ann), "neither all, nor another one, nor that of another message")

	require.Same(t, base, batch.Merge())
	require.Equal(t, []string{"o"}, emojis(base, ann))
	require.EqualValues(t, 3, base.event(1).Row.GetEditSeq())
	require.True(t, base.Knows(Need{Seq: 3}))
}

// An erasure marks the listed events as erased, if they are of its kinds.
func TestFactsAreErased(t *testing.T) {
	base := NewFacts(nil)
	for seq := range ids.Seq(4) {
		base.Load(Need{Seq: seq + 1}, &historyv1.Fact{Kind: aMessage})
	}
	base.Load(Need{Seq: 4}, &historyv1.Fact{Kind: conversationv1.EventKind_EVENT_KIND_CREATED})
	batch := NewFacts(base)
	batch.Add(&conversationv1.Event{Seq: 9}, []*historyv1.Effect{erase(&historyv1.EraseEvents{
		Seqs: []uint64{1, 3, 4, 7}, Kinds: []conversationv1.EventKind{aMessage},
	})})
	var erased []bool
	for seq := range ids.Seq(4) {
		erased = append(erased, batch.event(seq+1).Erased)
		require.False(t, base.event(seq+1).Erased)
	}
	require.Equal(t, []bool{true, false, true, false}, erased)
	require.Nil(t, batch.event(7))
}

// Removing a reaction of one user changes no reaction of another user to the same message.
func TestOneReactionIsDropped(t *testing.T) {
	base, users := NewFacts(nil), []string{"ann", "bob", "cem", "dan", "eve", "fay"}
	for i, user := range users {
		reactions := []*historyv1.Reaction{{Target: 1, Seq: uint64(2 + i), UserId: user, Emoji: "+1"}}
		base.Load(Need{Seq: 1, User: ids.User(user)}, &historyv1.Fact{Kind: aMessage, Reactions: reactions})
	}
	for i, user := range users {
		batch := NewFacts(base)
		batch.Add(&conversationv1.Event{Seq: 9}, []*historyv1.Effect{dropped(1, uint64(2+i))})
		for _, other := range users {
			require.Equal(t, other == user, emojis(batch, Need{Seq: 1, User: ids.User(other)}) == nil, "%s's was removed, %s's is read", user, other)
		}
	}
}

func TestNoFacts(t *testing.T) {
	var none *Facts
	require.Zero(t, none.Len())
	require.False(t, none.Knows(Need{Seq: 1}))
}
