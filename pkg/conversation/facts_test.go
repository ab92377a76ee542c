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

// Facts read through to their base and never write to it, until they are merged.
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

// An erasure marks the events that it names, if they are of its kinds.
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

func TestNoFacts(t *testing.T) {
	var none *Facts
	require.Zero(t, none.Len())
	require.False(t, none.Knows(Need{Seq: 1}))
}

// The creator owns a conversation; after they left, the member of longest standing does.
func TestOwner(t *testing.T) {
	for name, c := range map[string]struct {
		members map[ids.User]ids.Seq
		want    ids.User
	}{
		"nobody":               {nil, ""},
		"the creator":          {map[ids.User]ids.Seq{"ann": 1, "aaron": 1}, "ann"},
		"a creator came back":  {map[ids.User]ids.Seq{"ann": 9, "bob": 1}, "bob"},
		"of longest standing":  {map[ids.User]ids.Seq{"bob": 3, "cem": 2, "dan": 4}, "cem"},
		"of the lower user id": {map[ids.User]ids.Seq{"eve": 2, "dan": 2, "bob": 3}, "dan"},
	} {
		for range 8 { // a map has no order
			require.Equal(t, c.want, (&State{Creator: "ann", Members: c.members}).Owner(), name)
		}
	}
}

// Bodies are compared by what they say. One that holds something unknown equals only its own bytes.
func TestSameBody(t *testing.T) {
	x, err := EncodeBody(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "x"}}})
	require.NoError(t, err)
	y, err := EncodeBody(&conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "y"}}})
	require.NoError(t, err)
	twice := append(append([]byte{}, x...), x...) // the same field twice is the same message
	strange := append(append([]byte{}, x...), 0xf8, 0x7f, 0x01)
	require.True(t, SameBody(x, x))
	require.False(t, SameBody(x, y))
	require.True(t, SameBody(x, twice))
	require.True(t, SameBody(twice, x))
	require.True(t, SameBody(strange, strange))
	require.False(t, SameBody(x, strange))
	require.False(t, SameBody(strange, x))
	require.False(t, SameBody(x, []byte{0xff}))
	require.False(t, SameBody([]byte{0xff}, x))
	require.False(t, SameBody([]byte{0xff}, []byte{0xfe}))
}

// Two entries of metadata have one encoding, whatever the order of the map.
func TestEncodingsAreCanonical(t *testing.T) {
	body := &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "x", Metadata: map[string]string{"a": "1", "b": "2"}}}}
	first, err := EncodeBody(body)
	require.NoError(t, err)
	for range 50 {
		again, err := EncodeBody(body)
		require.NoError(t, err)
		require.Equal(t, first, again)
	}
}

// Ids are checked character by character.
func TestIDs(t *testing.T) {
	id := string(DirectID("ann", "bob"))
	require.Equal(t, id, string(DirectID("bob", "ann")), "of two users, in either order")
	require.NotEqual(t, id, string(DirectID("ann", "cem")))
	require.True(t, ValidID(id))
	require.False(t, ValidID(id[:len(id)-1]))
	require.False(t, ValidID(id+"0"))
	for _, valid := range "09av" {
		require.True(t, ValidID(id[:5]+string(valid)+id[6:]), string(valid))
		require.True(t, ValidID(id[:len(id)-1]+string(valid)), string(valid))
	}
	for _, wrong := range "/:`w{A.*>" {
		require.False(t, ValidID(id[:5]+string(wrong)+id[6:]), string(wrong))
		require.False(t, ValidID(id[:len(id)-1]+string(wrong)), string(wrong))
	}
	for letter, want := range map[string]bool{"a": true, "z": true, "`": false, "{": false, "0": false} {
		require.Equal(t, want, ValidID(letter+id[1:]), letter)
		require.False(t, AdmissibleID("a"+id[1:]))
	}
	require.True(t, AdmissibleID(id))
	require.True(t, AdmissibleID(string(GroupID("ann", "x"))))
	command := "0192f3c0-0000-7000-8000-000000000001"
	require.True(t, ValidCommandID(command))
	for at := range command {
		for _, c := range "09af/:`gA-" {
			want := (c == '-') == (command[at] == '-') && (c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'f')
			require.Equal(t, want, ValidCommandID(command[:at]+string(c)+command[at+1:]), "%c at %d", c, at)
		}
	}
	require.False(t, ValidCommandID(command+"0"))
	require.True(t, ValidSender("ann"))
	require.True(t, ValidSender(string(ServerUser)))
	require.False(t, ValidSender("a b"))
}
