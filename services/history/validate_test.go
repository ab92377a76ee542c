package history_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// TestEveryFieldHasALimit breaks one field at a time and expects INVALID_ARGUMENT with the field's name.
func TestEveryFieldHasALimit(t *testing.T) {
	b := newBed(t)
	_, good := creation(t, "bob")
	id := good.GetEvents()[0].GetConversationId()
	ctx := t.Context()
	tooMany := make([]string, 1001)
	for i := range tooMany {
		tooMany[i] = id
	}
	effect := func(e *historyv1.Effect) func(*historyv1.AppendRequest) {
		return func(r *historyv1.AppendRequest) { r.Effects[0] = e }
	}
	erase := func(e *historyv1.EraseEvents) func(*historyv1.AppendRequest) {
		return effect(&historyv1.Effect{Effect: &historyv1.Effect_EraseEvents{EraseEvents: e}})
	}
	refused := func(spoil func(*historyv1.Refusal)) func(*historyv1.AppendRequest) {
		return func(r *historyv1.AppendRequest) {
			r.Refusals = []*historyv1.Refusal{refusal(id, "alice", r.GetEvents()[0].GetCommandId())}
			spoil(r.GetRefusals()[0])
		}
	}
	appends := map[string]func(*historyv1.AppendRequest){
		"partition:":                      func(r *historyv1.AppendRequest) { r.Partition = storetest.Partitions },
		"expected.stream:":                func(r *historyv1.AppendRequest) { r.Expected = &historyv1.Watermark{Stream: "x"} },
		"expected.sequence:":              func(r *historyv1.AppendRequest) { r.Expected = &historyv1.Watermark{Stream: "1", Sequence: 1 << 63} },
		"next.stream:":                    func(r *historyv1.AppendRequest) { r.Next = nil },
		"next.sequence:":                  func(r *historyv1.AppendRequest) { r.Next.Sequence = 1 << 63 },
		"events:":                         func(r *historyv1.AppendRequest) { r.Events = make([]*conversationv1.Event, 1001) },
		"events[0].conversation_id:":      func(r *historyv1.AppendRequest) { r.Events[0].ConversationId = "g.*>" },
		"events[0].conversation_id: ":     func(r *historyv1.AppendRequest) { r.Partition = (r.GetPartition() + 1) % storetest.Partitions },
		"events[0].seq:":                  func(r *historyv1.AppendRequest) { r.Events[0].Seq = 0 },
		"effects[0].create_conversation:": func(r *historyv1.AppendRequest) { r.Events[0].Seq = 2 },
		"events[0].time_ms:":              func(r *historyv1.AppendRequest) { r.Events[0].TimeMs = -1 },
		"events[0].sender:":               func(r *historyv1.AppendRequest) { r.Events[0].Sender = "a\nb" },
		"events[0].command_id:": func(r *historyv1.AppendRequest) {
			r.Events[0].CommandId = strings.ToUpper(r.GetEvents()[0].GetCommandId()) + "A"
		},
		"events[0].kind:":         func(r *historyv1.AppendRequest) { r.Events[0].Kind = conversationv1.EventKind_EVENT_KIND_MESSAGE },
		"events[0].kind: ":        func(r *historyv1.AppendRequest) { r.Events[0].Kind = 0 },
		"events[0].kind:  ":       func(r *historyv1.AppendRequest) { r.Events[0].Body = []byte{0xff} },
		"events[0].kind:   ":      func(r *historyv1.AppendRequest) { r.Events[0].Kind = 1 << 15 },
		"events[0].format:":       func(r *historyv1.AppendRequest) { r.Events[0].Format = 1 },
		"events[0].salt:":         func(r *historyv1.AppendRequest) { r.Events[0].Salt = nil },
		"events[0].salt: ":        func(r *historyv1.AppendRequest) { r.Events[0].Salt = make([]byte, 33) },
		"events[0].salt:  ":       func(r *historyv1.AppendRequest) { r.Events[0].Body = nil },
		"events[0].commitment:":   func(r *historyv1.AppendRequest) { r.Events[0].Commitment = make([]byte, 32) },
		"events[0].commitment: ":  func(r *historyv1.AppendRequest) { r.Events[0].Commitment = nil },
		"events[0].prev_hash:":    func(r *historyv1.AppendRequest) { r.Events[0].PrevHash = nil },
		"events[0].hash:":         func(r *historyv1.AppendRequest) { r.Events[0].Hash = make([]byte, 31) },
		"events[0].header_extra:": func(r *historyv1.AppendRequest) { r.Events[0].HeaderExtra = make([]byte, 1<<20+1) },
		"expected.epoch:":         func(r *historyv1.AppendRequest) { r.Expected = &historyv1.Watermark{Stream: "1", Epoch: 1 << 63} },
		"sequences:":              func(r *historyv1.AppendRequest) { r.Sequences = nil },
		"effects:":                func(r *historyv1.AppendRequest) { r.Effects = make([]*historyv1.Effect, 8001) },
		"effects[0].event:":       func(r *historyv1.AppendRequest) { r.Effects[0].Event = 1 },
		"effects[0].create_conversation.kind:": func(r *historyv1.AppendRequest) {
			r.Effects[0].GetCreateConversation().Kind = 0
		},
		"effects[1].set_name.name:":              func(r *historyv1.AppendRequest) { r.Effects[1].GetSetName().Name = "a\x00" },
		"effects[1].set_name:":                   func(r *historyv1.AppendRequest) { r.Effects[1].GetSetName().Sender = "" },
		"effects[2].begin_memberships.user_ids:": func(r *historyv1.AppendRequest) { r.Effects[2].GetBeginMemberships().UserIds[0] = "*" },
		"effects[0].end_membership.user_id:":     effect(&historyv1.Effect{Effect: &historyv1.Effect_EndMembership{EndMembership: &historyv1.EndMembership{}}}),
		"effects[0].put_message:":                effect(&historyv1.Effect{Effect: &historyv1.Effect_PutMessage{PutMessage: &historyv1.MessageRow{}}}),
		"effects[0].put_reaction:":               effect(&historyv1.Effect{Effect: &historyv1.Effect_PutReaction{PutReaction: &historyv1.Reaction{Seq: 1}}}),
		"effects[0].put_reaction.user_id:":       effect(&historyv1.Effect{Effect: &historyv1.Effect_PutReaction{PutReaction: &historyv1.Reaction{Seq: 1, Target: 1}}}),
		"effects[0].put_reaction.emoji:":         effect(&historyv1.Effect{Effect: &historyv1.Effect_PutReaction{PutReaction: &historyv1.Reaction{Seq: 1, Target: 1, UserId: "a"}}}),
		"effects[0].drop_reactions:":             effect(&historyv1.Effect{Effect: &historyv1.Effect_DropReactions{DropReactions: &historyv1.DropReactions{}}}),
		"effects[0].erase_events:":               erase(&historyv1.EraseEvents{Below: 1, Kinds: []conversationv1.EventKind{2}}),
		"effects[0].erase_events.seqs:":          erase(&historyv1.EraseEvents{Below: 1, Kinds: []conversationv1.EventKind{2}, Seqs: []uint64{0}}),
		"effects[0].erase_events.sender:":        erase(&historyv1.EraseEvents{Below: 1, Kinds: []conversationv1.EventKind{2}, Sender: "*"}),
		"effects[0].erase_events.kinds:":         erase(&historyv1.EraseEvents{Below: 1, Sender: "a"}),
		"effects[0].erase_events.below:":         erase(&historyv1.EraseEvents{Kinds: []conversationv1.EventKind{2}, Sender: "a"}),
		"refusals:":                              func(r *historyv1.AppendRequest) { r.Refusals = make([]*historyv1.Refusal, 1001) },
		"refusals[0].command.conversation_id:":   refused(func(r *historyv1.Refusal) { r.Command = nil }),
		"refusals[0].command.sender:":            refused(func(r *historyv1.Refusal) { r.Command.Sender = "" }),
		"refusals[0].command.command_id:":        refused(func(r *historyv1.Refusal) { r.Command.CommandId = "x" }),
		"refusals[0].command.conversation_id: ":  refused(func(r *historyv1.Refusal) { r.Command.ConversationId = elsewhere(id) }),
		"refusals[0].commitment:":                refused(func(r *historyv1.Refusal) { r.Commitment = nil }),
		"refusals[0].error.code:":                refused(func(r *historyv1.Refusal) { r.Error = nil }),
		"refusals[0].error.message:":             refused(func(r *historyv1.Refusal) { r.Error.Message = strings.Repeat("x", 4097) }),
		"refusals[0].error.field:":               refused(func(r *historyv1.Refusal) { r.Error.Field = "\x00" }),
		"refusals[0].time_ms:":                   refused(func(r *historyv1.Refusal) { r.TimeMs = -1 }),
		"dead_letters:":                          func(r *historyv1.AppendRequest) { r.DeadLetters = make([]*historyv1.DeadLetter, 1001) },
		"dead_letters[0].sequence:":              func(r *historyv1.AppendRequest) { r.DeadLetters = []*historyv1.DeadLetter{{}} },
		"dead_letters[0].payload:": func(r *historyv1.AppendRequest) {
			r.DeadLetters = []*historyv1.DeadLetter{{Sequence: 1, Payload: make([]byte, 1<<20+1)}}
		},
	}
	unknown := protoreflect.RawFields{0xb8, 0x3e, 1} // field 999
	for name, spoil := range map[string]func(*historyv1.AppendRequest){
		"an effect":        func(r *historyv1.AppendRequest) { r.Effects[0] = &historyv1.Effect{} },
		"a field":          func(r *historyv1.AppendRequest) { r.ProtoReflect().SetUnknown(unknown) },
		"of an event":      func(r *historyv1.AppendRequest) { r.GetEvents()[0].ProtoReflect().SetUnknown(unknown) },
		"of the watermark": func(r *historyv1.AppendRequest) { r.GetNext().ProtoReflect().SetUnknown(unknown) },
		"beside an effect": func(r *historyv1.AppendRequest) { r.GetEffects()[0].ProtoReflect().SetUnknown(unknown) },
		"within an effect": func(r *historyv1.AppendRequest) {
			r.GetEffects()[0].GetCreateConversation().ProtoReflect().SetUnknown(unknown)
		},
		"of a dead letter": func(r *historyv1.AppendRequest) {
			r.DeadLetters = []*historyv1.DeadLetter{{Sequence: 1}}
			r.GetDeadLetters()[0].ProtoReflect().SetUnknown(unknown)
		},
		"within a refusal": refused(func(r *historyv1.Refusal) { r.GetError().ProtoReflect().SetUnknown(unknown) }),
	} {
		newer := proto.CloneOf(good)
		spoil(newer)
		_, err := b.client.Append(ctx, newer)
		st := requireCode(t, codes.FailedPrecondition, err) // an invalid argument would make the command a dead letter
		require.Contains(t, st.Message(), "newer than this build", name)
	}
	for field, spoil := range appends {
		request := proto.CloneOf(good)
		spoil(request)
		_, err := b.client.Append(ctx, request)
		st := requireCode(t, codes.InvalidArgument, err)
		require.True(t, strings.HasPrefix(st.Message(), strings.TrimSpace(field)), "%s is not about %s", st.Message(), field)
	}
	_, err := b.client.Append(ctx, good)
	require.NoError(t, err, "the unchanged request is valid")

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
		{"conversation_ids", &historyv1.ListConversationsRequest{UserId: "alice", ConversationIds: tooMany}},
		{"conversation_ids[0]", &historyv1.ListConversationsRequest{UserId: "alice", ConversationIds: []string{"x"}}},
		{"user_id", &historyv1.FindMembershipsRequest{}},
		{"conversation_ids", &historyv1.FindMembershipsRequest{UserId: "alice", ConversationIds: tooMany}},
		{"conversation_ids[1]", &historyv1.FindMembershipsRequest{UserId: "alice", ConversationIds: []string{id, ""}}},
		{"user_ids", &historyv1.CountMembershipsRequest{UserIds: tooMany}},
		{"user_ids[1]", &historyv1.CountMembershipsRequest{UserIds: []string{"alice", "*"}}},
		{"users[0].user_id", &historyv1.CompareMembershipsRequest{Users: []*historyv1.KnownMemberships{{}}}},
		{"users", &historyv1.CompareMembershipsRequest{Users: make([]*historyv1.KnownMemberships, 1001)}},
		{"since_ms", &historyv1.CompareMembershipsRequest{SinceMs: -1}},
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
		{"needs", &historyv1.GetFactsRequest{Needs: make([]*historyv1.Need, 1001)}},
		{"needs[0].conversation_id", &historyv1.GetFactsRequest{Needs: []*historyv1.Need{{}}}},
		{"needs[0].seq", &historyv1.GetFactsRequest{Needs: []*historyv1.Need{{ConversationId: id, Seq: 1 << 63}}}},
		{"needs[0].user_id", &historyv1.GetFactsRequest{Needs: []*historyv1.Need{{ConversationId: id, UserId: "*"}}}},
		{"viewer", &historyv1.ReadMessagesRequest{ConversationId: id}},
		{"conversation_id", &historyv1.ReadMessagesRequest{Viewer: "alice"}},
		{"after", &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "alice", After: 1<<63 - 1}},
		{"limit", &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "alice", Limit: 201}},
		{"kinds", &historyv1.ReadMessagesRequest{ConversationId: id, Viewer: "alice"}},
		{"partition", &historyv1.ListRefusalsRequest{Partition: storetest.Partitions}},
		{"after.conversation_id", &historyv1.ListRefusalsRequest{After: &historyv1.CommandKey{}}},
		{"limit", &historyv1.ListRefusalsRequest{Limit: 1001}},
		{"partition", &historyv1.ReadFeedRequest{Partition: storetest.Partitions}},
		{"after", &historyv1.ReadFeedRequest{After: &historyv1.Position{Epoch: 1 << 63}}},
		{"wait_ms", &historyv1.ReadFeedRequest{WaitMs: 60_001}},
		{"limit", &historyv1.ReadFeedRequest{Limit: 1001}},
		{"reader", &historyv1.GetFeedCursorsRequest{Reader: "a b"}},
		{"reader", &historyv1.SaveFeedCursorRequest{Reader: strings.Repeat("r", 65)}},
		{"cursor.partition", &historyv1.SaveFeedCursorRequest{Reader: "r", Cursor: &historyv1.FeedCursor{Partition: storetest.Partitions}}},
		{"cursor.position", &historyv1.SaveFeedCursorRequest{Reader: "r", Cursor: &historyv1.FeedCursor{Position: &historyv1.Position{Sequence: 1 << 63}}}},
		{"level", &historyv1.RaiseLevelRequest{}},
		{"marks", &historyv1.MarkBackupRequest{Marks: make([]*historyv1.BackupMark, storetest.Partitions+1)}},
		{"marks[0].partition", &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{Partition: storetest.Partitions}}}},
		{"marks[0].watermark.stream", &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{}}}},
		{"marks[0].watermark", &historyv1.MarkBackupRequest{Marks: []*historyv1.BackupMark{{Watermark: &historyv1.Watermark{Stream: "1", Epoch: 1, Sequence: 9}}}}},
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

// elsewhere is the id of a conversation of another partition.
func elsewhere(id string) string {
	other := ids.Conversation(id)
	for conversation.Partition(other, storetest.Partitions) == conversation.Partition(ids.Conversation(id), storetest.Partitions) {
		other = conversation.Before(other)
	}
	return string(other)
}

// call calls the method whose parameter is this request.
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
	case *historyv1.FindMembershipsRequest:
		_, err = b.client.FindMemberships(ctx, r)
	case *historyv1.CountMembershipsRequest:
		_, err = b.client.CountMemberships(ctx, r)
	case *historyv1.CompareMembershipsRequest:
		_, err = b.client.CompareMemberships(ctx, r)
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
	case *historyv1.GetFactsRequest:
		_, err = b.client.GetFacts(ctx, r)
	case *historyv1.ReadMessagesRequest:
		_, err = b.client.ReadMessages(ctx, r)
	case *historyv1.ListRefusalsRequest:
		_, err = b.client.ListRefusals(ctx, r)
	case *historyv1.ReadFeedRequest:
		_, err = b.client.ReadFeed(ctx, r)
	case *historyv1.GetFeedCursorsRequest:
		_, err = b.client.GetFeedCursors(ctx, r)
	case *historyv1.SaveFeedCursorRequest:
		_, err = b.client.SaveFeedCursor(ctx, r)
	case *historyv1.RaiseLevelRequest:
		_, err = b.client.RaiseLevel(ctx, r)
	case *historyv1.MarkBackupRequest:
		_, err = b.client.MarkBackup(ctx, r)
	default:
		require.Fail(t, "no method takes this")
	}
	return err
}
