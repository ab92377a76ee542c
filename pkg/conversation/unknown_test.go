package conversation

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// newer adds a field that this build does not know to a message.
func newer[M proto.Message](message M) M {
	message.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1999, protowire.VarintType), 1))
	return message
}

// A field of a later version is found at any depth.
func TestUnknownFieldsAreFound(t *testing.T) {
	message := func(inner *conversationv1.Message) *conversationv1.Body {
		return &conversationv1.Body{Action: &conversationv1.Body_Message{Message: inner}}
	}
	known := func() *conversationv1.Message {
		return &conversationv1.Message{Text: "hi", Metadata: map[string]string{"k": "v"}, ReplyTo: 2}
	}
	steps := func(delivered ...*conversationv1.Step) *conversationv1.Receipt {
		return &conversationv1.Receipt{ConversationId: "c", Delivered: delivered, Version: 3}
	}
	for name, c := range map[string]struct {
		message proto.Message
		want    bool
	}{
		"an empty message":            {&conversationv1.Body{}, false},
		"every field is known":        {message(known()), false},
		"in the message itself":       {newer(message(known())), true},
		"in an empty message":         {newer(&conversationv1.Body{}), true},
		"in a message below":          {message(newer(known())), true},
		"a list of known messages":    {steps(&conversationv1.Step{Seq: 1}, &conversationv1.Step{}), false},
		"in the first one of a list":  {steps(newer(&conversationv1.Step{Seq: 1}), &conversationv1.Step{}), true},
		"in the last one of a list":   {steps(&conversationv1.Step{Seq: 1}, newer(&conversationv1.Step{})), true},
		"a list of numbers and texts": {&conversationv1.Targets{Seqs: []uint64{1}, Users: []string{"ann"}}, false},
	} {
		require.Equal(t, c.want, HasUnknownFields(c.message.ProtoReflect()), name)
	}
}

// Events of a newer kind are read by parts that do not know it: every question about a kind has an answer.
func TestUnknownKindsHaveNoProperties(t *testing.T) {
	last := Kinds()[len(Kinds())-1]
	for _, kind := range []conversationv1.EventKind{-1, 0, last + 1, 998} {
		require.False(t, Erases(kind), "%d", kind)
		described, name := Describe(kind)
		require.Zero(t, described, "%d", kind)
		require.Empty(t, name, "%d", kind)
		joined, left := Memberships(&conversationv1.Event{Seq: 5, Kind: kind, Body: []byte{0xff}})
		require.Empty(t, joined, "%d", kind)
		require.Empty(t, left, "%d", kind)
	}
	require.True(t, Erases(last), "an erasure")
}

// The kind of an encoded body is the number of its only action; fields beside the action begin at 1000.
func TestTheKindOfAnEncodedBody(t *testing.T) {
	field := func(number protowire.Number, wireType protowire.Type) []byte {
		data := protowire.AppendTag(nil, number, wireType)
		if wireType == protowire.VarintType {
			return protowire.AppendVarint(data, 1)
		}
		return protowire.AppendBytes(data, nil)
	}
	for name, c := range map[string]struct {
		body []byte
		want conversationv1.EventKind
	}{
		"nothing":                         {nil, 0},
		"a message":                       {field(2, protowire.BytesType), 2},
		"the highest number of an action": {field(999, protowire.BytesType), 999},
		"a field beside the action":       {field(1000, protowire.BytesType), 0},
		"an action and a field beside it": {append(field(1000, protowire.VarintType), field(2, protowire.BytesType)...), 2},
		"two actions":                     {append(field(2, protowire.BytesType), field(3, protowire.BytesType)...), 0},
		"an action that is a number":      {field(2, protowire.VarintType), 0},
		"a tag that is cut off":           {[]byte{0x80}, 0},
		"a field that is cut off":         {protowire.AppendTag(nil, 2, protowire.BytesType), 0},
	} {
		require.Equal(t, c.want, KindOfBytes(c.body), name)
	}
}
