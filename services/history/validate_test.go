package history_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestEveryFieldHasALimit breaks one field at a time and expects INVALID_ARGUMENT naming it.
func TestEveryFieldHasALimit(t *testing.T) {
	b := newBed(t)
	_, good := creation(t, "bob")
	id := good.GetEvents()[0].GetConversationId()
	ctx := t.Context()
	tooMany := make([]string, 1001)
	for i := range tooMany {
		tooMany[i] = id
	}
	appends := map[string]func(*historyv1.AppendRequest){
		"partition:":                  func(r *historyv1.AppendRequest) { r.Partition = storetest.Partitions },
		"expected.stream:":            func(r *historyv1.AppendRequest) { r.Expected = &historyv1.Watermark{Stream: "x"} },
		"expected.sequence:":          func(r *historyv1.AppendRequest) { r.Expected = &historyv1.Watermark{Stream: "1", Sequence: 1 << 63} },
		"next.stream:":                func(r *historyv1.AppendRequest) { r.Next = nil },
		"next.sequence:":              func(r *historyv1.AppendRequest) { r.Next.Sequence = 1 << 63 },
		"events:":                     func(r *historyv1.AppendRequest) { r.Events = make([]*conversationv1.Event, 1001) },
		"events[0].conversation_id:":  func(r *historyv1.AppendRequest) { r.Events[0].ConversationId = "g.*>" },
		"events[0].conversation_id: ": func(r *historyv1.AppendRequest) { r.Partition = (r.GetPartition() + 1) % storetest.Partitions },
		"events[0].seq:":              func(r *historyv1.AppendRequest) { r.Events[0].Seq = 0 },
		"events[0].seq: ":             func(r *historyv1.AppendRequest) { r.Events[0].Seq = 2 },
		"events[0].time_ms:":          func(r *historyv1.AppendRequest) { r.Events[0].TimeMs = -1 },
		"events[0].sender:":           func(r *historyv1.AppendRequest) { r.Events[0].Sender = "a\nb" },
		"events[0].command_id:": func(r *historyv1.AppendRequest) {
			r.Events[0].CommandId = strings.ToUpper(r.GetEvents()[0].GetCommandId()) + "A"
		},
		"events[0].kind:":           func(r *historyv1.AppendRequest) { r.Events[0].Kind = conversationv1.EventKind_EVENT_KIND_MESSAGE },
		"events[0].kind: ":          func(r *historyv1.AppendRequest) { r.Events[0].Body = nil },
		"events[0].salt:":           func(r *historyv1.AppendRequest) { r.Events[0].Salt = nil },
		"events[0].commitment:":     func(r *historyv1.AppendRequest) { r.Events[0].Commitment = make([]byte, 32) },
		"events[0].prev_hash:":      func(r *historyv1.AppendRequest) { r.Events[0].PrevHash = nil },
		"events[0].hash:":           func(r *historyv1.AppendRequest) { r.Events[0].Hash = make([]byte, 31) },
		"dead_letters:":             func(r *historyv1.AppendRequest) { r.DeadLetters = make([]*historyv1.DeadLetter, 1001) },
		"dead_letters[0].sequence:": func(r *historyv1.AppendRequest) { r.DeadLetters = []*historyv1.DeadLetter{{}} },
		"dead_letters[0].payload:": func(r *historyv1.AppendRequest) {
			r.DeadLetters = []*historyv1.DeadLetter{{Sequence: 1, Payload: make([]byte, 1<<20+1)}}
		},
	}
	for field, spoil := range appends {
		request := proto.CloneOf(good)
		spoil(request)
		_, err := b.client.Append(ctx, request)
		st := requireCode(t, codes.InvalidArgument, err)
		require.True(t, strings.HasPrefix(st.Message(), strings.TrimSpace(field)), "%s is not about %s", st.Message(), field)
	}
	_, err := b.client.Append(ctx, good)
	require.NoError(t, err, "and as it was it is good")

	key := func(conversation, sender, command string) *historyv1.FindCommandsRequest {
		return &historyv1.FindCommandsRequest{Commands: []*historyv1.CommandKey{{ConversationId: conversation, Sender: sender, CommandId: command}}}
	}
	save := func(conversation string, cursor *conversationv1.Cursor) *historyv1.SaveCursorsRequest {
		return &historyv1.SaveCursorsRequest{Updates: []*historyv1.CursorUpdate{{ConversationId: conversation, Cursor: cursor}}}
	}
	command := good.GetEvents()[0].GetCommandId()
	for _, test := range []struct {
		field   string
		request proto.Message
	}{
		{"partition", &historyv1.GetWatermarkRequest{Partition: storetest.Partitions}},
		{"worker", &historyv1.LeaseRequest{TtlMs: 1}},
		{"worker", &historyv1.LeaseRequest{Worker: "two words", TtlMs: 1}},
		{"worker", &historyv1.LeaseRequest{Worker: "a\nb", TtlMs: 1}},
		{"worker", &historyv1.LeaseRequest{Worker: strings.Repeat("w", 129), TtlMs: 1}},
		{"ttl_ms", &historyv1.LeaseRequest{Worker: "w"}},
		{"ttl_ms", &historyv1.LeaseRequest{Worker: "w", TtlMs: 600_001}},
		{"release", &historyv1.LeaseRequest{Worker: "w", TtlMs: 1, Release: make([]uint32, storetest.Partitions+1)}},
		{"release[0]", &historyv1.LeaseRequest{Worker: "w", TtlMs: 1, Release: []uint32{storetest.Partitions}}},
		{"conversation_ids", &historyv1.GetConversationsRequest{ConversationIds: tooMany}},
		{"conversation_ids[0]", &historyv1.GetConversationsRequest{ConversationIds: []string{`"]`}}},
		{"conversation_ids", &historyv1.HeadsRequest{ConversationIds: tooMany}},
		{"conversation_ids[1]", &historyv1.HeadsRequest{ConversationIds: []string{id, ""}}},
		{"commands", &historyv1.FindCommandsRequest{Commands: make([]*historyv1.CommandKey, 1001)}},
		{"commands[0].conversation_id", key("", "alice", command)},
		{"commands[0].sender", key(id, "", command)},
		{"commands[0].command_id", key(id, "alice", "")},
		{"conversation_id", &historyv1.ReadRequest{}},
		{"viewer", &historyv1.ReadRequest{ConversationId: id, Viewer: "a.b"}},
		{"after", &historyv1.ReadRequest{ConversationId: id, After: 1<<63 - 1}},
		{"before", &historyv1.ReadRequest{ConversationId: id, Before: 1 << 63}},
		{"limit", &historyv1.ReadRequest{ConversationId: id, Limit: 1001}},
		{"user_id", &historyv1.ListConversationsRequest{}},
		{"after", &historyv1.ListConversationsRequest{UserId: "alice", After: "x"}},
		{"limit", &historyv1.ListConversationsRequest{UserId: "alice", Limit: 1001}},
		{"conversation_id", &historyv1.ListMembersRequest{}},
		{"viewer", &historyv1.ListMembersRequest{ConversationId: id, Viewer: "*"}},
		{"after", &historyv1.ListMembersRequest{ConversationId: id, After: "*"}},
		{"limit", &historyv1.ListMembersRequest{ConversationId: id, Limit: 1001}},
		{"partition", &historyv1.MovePartitionRequest{Partition: storetest.Partitions}},
		{"worker", &historyv1.MovePartitionRequest{Worker: "two words"}},
		{"partition", &historyv1.ListDeadLettersRequest{Partition: proto.Uint32(storetest.Partitions)}},
		{"after", &historyv1.ListDeadLettersRequest{After: "3-1-1"}},
		{"limit", &historyv1.ListDeadLettersRequest{Limit: 1001}},
		{"dead_letter_id", &historyv1.GetDeadLetterRequest{}},
		{"dead_letter_id", &historyv1.DropDeadLetterRequest{DeadLetterId: "0003-'; DROP TABLE events--0000000000000000001"}},
		{"user_id", &historyv1.RevokeUserRequest{}},
		{"user_id", &historyv1.RevokeUserRequest{UserId: "*"}},
		{"user_id", &historyv1.GetRevocationsRequest{UserId: "*"}},
		{"since_ms", &historyv1.GetRevocationsRequest{SinceMs: -1}},
		{"updates", &historyv1.SaveCursorsRequest{Updates: make([]*historyv1.CursorUpdate, 1001)}},
		{"updates[0].conversation_id", save("", &conversationv1.Cursor{UserId: "bob"})},
		{"updates[0].cursor.user_id", save(id, nil)},
		{"updates[0].cursor.delivered_seq", save(id, &conversationv1.Cursor{UserId: "bob", DeliveredSeq: 1 << 63})},
		{"updates[0].cursor.read_seq", save(id, &conversationv1.Cursor{UserId: "bob", ReadSeq: 1 << 63})},
		{"updates[0].cursor.delivered_time_ms", save(id, &conversationv1.Cursor{UserId: "bob", DeliveredTimeMs: -1})},
		{"updates[0].cursor.read_time_ms", save(id, &conversationv1.Cursor{UserId: "bob", ReadTimeMs: -1})},
	} {
		st := requireCode(t, codes.InvalidArgument, call(t, b, test.request))
		require.True(t, strings.HasPrefix(st.Message(), test.field+":"), "%s is not about %s", st.Message(), test.field)
	}
}

// call calls the method that takes this request.
func call(t *testing.T, b *bed, request proto.Message) (err error) {
	t.Helper()
	ctx := t.Context()
	switch r := request.(type) {
	case *historyv1.GetWatermarkRequest:
		_, err = b.client.GetWatermark(ctx, r)
	case *historyv1.LeaseRequest:
		_, err = b.client.Lease(ctx, r)
	case *historyv1.GetConversationsRequest:
		_, err = b.client.GetConversations(ctx, r)
	case *historyv1.HeadsRequest:
		_, err = b.client.Heads(ctx, r)
	case *historyv1.FindCommandsRequest:
		_, err = b.client.FindCommands(ctx, r)
	case *historyv1.ReadRequest:
		_, err = b.client.Read(ctx, r)
	case *historyv1.ListConversationsRequest:
		_, err = b.client.ListConversations(ctx, r)
	case *historyv1.ListMembersRequest:
		_, err = b.client.ListMembers(ctx, r)
	case *historyv1.SaveCursorsRequest:
		_, err = b.client.SaveCursors(ctx, r)
	case *historyv1.MovePartitionRequest:
		_, err = b.client.MovePartition(ctx, r)
	case *historyv1.ListDeadLettersRequest:
		_, err = b.client.ListDeadLetters(ctx, r)
	case *historyv1.GetDeadLetterRequest:
		_, err = b.client.GetDeadLetter(ctx, r)
	case *historyv1.DropDeadLetterRequest:
		_, err = b.client.DropDeadLetter(ctx, r)
	case *historyv1.RevokeUserRequest:
		_, err = b.client.RevokeUser(ctx, r)
	case *historyv1.GetRevocationsRequest:
		_, err = b.client.GetRevocations(ctx, r)
	default:
		require.Fail(t, "no method takes this")
	}
	return err
}
