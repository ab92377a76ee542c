package protocol_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
	"github.com/runnelhq/runnel/pkg/rpc"
)

const (
	// clientLimit is the largest message that the Go client accepts.
	clientLimit = 64 << 20
	// pageBytes is the size at which the history service ends a page; the event that exceeds this size is still part of
	// the page.
	pageBytes = 1 << 20
)

func largestConversation() *clientv1.Conversation {
	return &clientv1.Conversation{
		ConversationId: longestConversation, Kind: conversationv1.Kind_KIND_GROUP, Name: worst(protocol.MaxNameBytes),
		Head: protocol.MaxSeq, JoinedSeq: protocol.MaxSeq, Cursor: largestCursor(), Members: protocol.MaxMembers, Peer: longestUser,
	}
}

func largestCursor() *conversationv1.Cursor {
	return &conversationv1.Cursor{
		UserId: longestUser, DeliveredSeq: protocol.MaxSeq, DeliveredTimeMs: 1 << 45, ReadSeq: protocol.MaxSeq, ReadTimeMs: 1 << 45,
	}
}

// largestLimits sets every field to its highest value.
func largestLimits() *clientv1.Limits {
	limits := &clientv1.Limits{}
	setHighest(limits.ProtoReflect())
	return limits
}

func setHighest(message protoreflect.Message) {
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); field.Kind() == protoreflect.MessageKind {
			setHighest(message.Mutable(field).Message())
		} else {
			message.Set(field, protoreflect.ValueOfUint32(math.MaxUint32))
		}
	}
}

// largestPage returns events of one kind that fill a page.
func largestPage(t *testing.T, body *conversationv1.Body) []*conversationv1.Event {
	t.Helper()
	encoded, err := conversation.EncodeBody(body)
	require.NoError(t, err)
	hash := []byte(worst(32))
	event := &conversationv1.Event{
		ConversationId: longestConversation, Seq: protocol.MaxSeq, TimeMs: 1 << 45, Sender: longestUser, CommandId: longestConversation,
		Kind: conversation.KindOf(body), Body: encoded, Salt: hash, Commitment: hash, PrevHash: hash, Hash: hash, Format: 2,
	}
	var page []*conversationv1.Event
	for size := 0; size < pageBytes && len(page) < protocol.MaxPage; size += proto.Size(event) {
		page = append(page, event)
	}
	return page
}

// The largest answers fit into the messages that a client accepts, in both encodings.
func TestTheLargestAnswersFit(t *testing.T) {
	answers := map[string]*clientv1.ServerFrame{}
	connected := &clientv1.Connected{ConnectionId: longestUser, UserId: longestUser, HeartbeatMs: 1 << 31, TokenExpiresMs: 1 << 45, ServerTimeMs: 1 << 45, MaxFrameBytes: 1 << 31, More: true, Level: 1 << 31, Limits: largestLimits()}
	for range protocol.MaxConnectedConversations {
		connected.Conversations = append(connected.Conversations, largestConversation())
	}
	answers["connected"] = &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Connected{Connected: connected}}
	list, members := &clientv1.Conversations{More: true}, &clientv1.Members{More: true}
	for range protocol.MaxPage {
		list.Conversations = append(list.Conversations, largestConversation())
		members.Members = append(members.Members, largestCursor())
	}
	answers["conversations"] = &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Conversations{Conversations: list}}
	answers["members"] = &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Members{Members: members}}
	for _, body := range largestBodies() {
		page := &clientv1.Page{Head: protocol.MaxSeq, More: true}
		for _, event := range largestPage(t, body) {
			page.Events = append(page.Events, &clientv1.Event{ // with the body in both forms, which a client may request
				ConversationId: event.GetConversationId(), Seq: event.GetSeq(), TimeMs: event.GetTimeMs(), Sender: event.GetSender(),
				CommandId: event.GetCommandId(), Kind: event.GetKind(), Body: body, BodyBytes: event.GetBody(), Salt: event.GetSalt(),
				Commitment: event.GetCommitment(), PrevHash: event.GetPrevHash(), Hash: event.GetHash(), Format: event.GetFormat(),
			})
		}
		answers["page of "+conversation.KindOf(body).String()] = &clientv1.ServerFrame{Message: &clientv1.ServerFrame_Page{Page: page}}
	}
	for name, answer := range answers {
		for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
			size := len(frame.AppendServer(nil, codec, answer))
			require.LessOrEqual(t, size, clientLimit, "%s %s", name, codec.Subprotocol())
			t.Logf("%s %s: %d bytes", name, codec.Subprotocol(), size)
		}
	}
}

// The largest answers of the history service fit into one message between services.
func TestTheLargestAnswersBetweenServicesFit(t *testing.T) {
	summaries := &historyv1.ListConversationsResponse{}
	for range rpc.MaxItems {
		c := largestConversation()
		summaries.Conversations = append(summaries.Conversations, &historyv1.Summary{
			ConversationId: c.GetConversationId(), Kind: c.GetKind(), Name: c.GetName(), Head: c.GetHead(), JoinedSeq: c.GetJoinedSeq(),
			Cursor: c.GetCursor(), Members: c.GetMembers(), Peer: c.GetPeer(),
		})
	}
	require.LessOrEqual(t, proto.Size(summaries), rpc.MaxMessageBytes)
	for _, body := range largestBodies() {
		require.LessOrEqual(t, proto.Size(&historyv1.ReadResponse{Events: largestPage(t, body)}), rpc.MaxMessageBytes, conversation.KindOf(body))
	}
}
