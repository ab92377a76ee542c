package frame

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

func TestFieldNumbersAreThoseOfTheSchema(t *testing.T) {
	for _, c := range []struct {
		message proto.Message
		name    protoreflect.Name
		number  protowire.Number
	}{
		{&clientv1.ServerFrame{}, "id", idField},
		{&clientv1.ServerFrame{}, "outcome", outcomeField},
		{&clientv1.ServerFrame{}, "page", pageField},
		{&clientv1.ServerFrame{}, "event", eventField},
		{&clientv1.ServerFrame{}, "receipt", receiptField},
		{&clientv1.ServerFrame{}, "traceparent", traceparentField},
		{&clientv1.Page{}, "events", pageEventsField},
		{&clientv1.Event{}, "body", eventBodyField},
		{&conversationv1.Event{}, "body", eventBodyField},
	} {
		field := c.message.ProtoReflect().Descriptor().Fields().ByName(c.name)
		require.NotNil(t, field, c.name)
		require.Equal(t, c.number, field.Number(), field.FullName())
	}
}

// Both Event messages have the same fields, except for the type of the body, body_bytes and kind_number.
func TestEventsHaveTheSameFields(t *testing.T) {
	stored, sent := (&conversationv1.Event{}).ProtoReflect().Descriptor().Fields(), (&clientv1.Event{}).ProtoReflect().Descriptor().Fields()
	require.Equal(t, stored.Len()+2, sent.Len())
	for i := range stored.Len() {
		a := stored.Get(i)
		b := sent.ByNumber(a.Number())
		require.NotNil(t, b, a.FullName())
		require.Equal(t, a.Name(), b.Name())
		require.Equal(t, a.Cardinality(), b.Cardinality())
		if a.Number() != eventBodyField {
			require.Equal(t, a.Kind(), b.Kind(), a.FullName())
		}
	}
}

func TestSchemaFitsThePath(t *testing.T) {
	var depth func(m protoreflect.MessageDescriptor) int
	depth = func(m protoreflect.MessageDescriptor) int {
		deepest := 0
		for i := range m.Fields().Len() {
			below := 0
			if inner := m.Fields().Get(i).Message(); inner != nil {
				below = depth(inner)
			}
			deepest = max(deepest, 1+below)
		}
		return deepest
	}
	require.LessOrEqual(t, depth((&clientv1.ClientFrame{}).ProtoReflect().Descriptor()), maxDepth)
	require.LessOrEqual(t, depth((&clientv1.ServerFrame{}).ProtoReflect().Descriptor()), maxDepth)
}
