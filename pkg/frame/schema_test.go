package frame

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
)

// The tables are written by hand; a field that is added to the schema must be added to them and to what reads them.
func TestTablesAreThoseOfTheSchema(t *testing.T) {
	for m, table := range map[proto.Message]names{
		&clientv1.ClientFrame{}: clientFrameNames, &clientv1.Connect{}: connectNames, &clientv1.Position{}: positionNames,
		&clientv1.Refresh{}: refreshNames, &clientv1.Submit{}: submitNames, &clientv1.Read{}: readNames,
		&clientv1.ListConversations{}: listConversationsNames, &clientv1.ListMembers{}: listMembersNames,
		&clientv1.Ack{}: ackNames, &clientv1.AckPosition{}: ackPositionNames, &clientv1.Pong{}: pongNames,
		&clientv1.ServerFrame{}: serverFrameNames, &clientv1.Page{}: pageNames,
		&conversationv1.Body{}: bodyNames, &conversationv1.Create{}: createNames, &conversationv1.Message{}: messageNames,
		&conversationv1.AddMembers{}: addMembersNames, &conversationv1.RemoveMember{}: removeMemberNames,
		&conversationv1.Leave{}: leaveNames, &conversationv1.Rename{}: renameNames, &conversationv1.Event{}: eventNames,
		&conversationv1.Error{}: errorNames, &conversationv1.Outcome{}: outcomeNames, &conversationv1.Receipt{}: receiptNames,
		&conversationv1.Step{}: stepNames, &conversationv1.Range{}: rangeNames,
	} {
		schema := m.ProtoReflect().Descriptor()
		want := names{}
		for i := range schema.Fields().Len() {
			field := schema.Fields().Get(i)
			for len(want) <= int(field.Number()) {
				want = append(want, [2]string{})
			}
			want[field.Number()] = [2]string{field.JSONName(), string(field.Name())}
		}
		require.Equal(t, want, table, schema.FullName())
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
