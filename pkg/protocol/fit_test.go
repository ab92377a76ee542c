package protocol_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/protocol"
)

const maxID = 1<<64 - 1 // id of a request

var (
	longestUser         = strings.Repeat("u", protocol.MaxIDBytes)
	longestConversation = strings.Repeat("v", protocol.ConversationIDBytes)
)

// worst returns the text of n bytes that needs the most space in JSON: every byte is escaped as \u0001. Therefore the
// test holds even for encoders that escape more than necessary.
func worst(n int) string { return strings.Repeat("\x01", n) }

func largestConnect() *clientv1.Connect {
	connect := &clientv1.Connect{
		Token: strings.Repeat("t", protocol.MaxTokenBytes), DeviceId: longestUser, Client: worst(protocol.MaxClientNameBytes),
		Start: clientv1.Start_START_DELIVERED, Accepted: true, NoReceipts: true, BodyBytes: true,
	}
	for range protocol.MaxResumePositions {
		connect.Resume = append(connect.Resume, &clientv1.Position{
			ConversationId: longestConversation, Seq: protocol.MaxSeq, Hash: []byte(strings.Repeat("\xff", protocol.HashPrefixBytes)),
		})
	}
	return connect
}

func largestMetadata() map[string]string {
	metadata := map[string]string{}
	for i := range protocol.MaxMetadataEntries {
		metadata[fmt.Sprintf("%0*d", protocol.MaxMetadataKeyBytes, i)] = worst(protocol.MaxMetadataValueBytes)
	}
	return metadata
}

func users(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%0*d", protocol.MaxIDBytes, i)
	}
	return all
}

// largestBodies returns a body of every kind.
func largestBodies() []*conversationv1.Body {
	return []*conversationv1.Body{
		{Action: &conversationv1.Body_Create{Create: &conversationv1.Create{
			Kind: conversationv1.Kind_KIND_GROUP, Name: worst(protocol.MaxNameBytes), Members: users(protocol.MaxMembers - 1),
		}}},
		{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{
			Text: worst(protocol.MaxTextBytes), Metadata: largestMetadata(), ReplyTo: protocol.MaxSeq,
		}}},
		{Action: &conversationv1.Body_AddMembers{AddMembers: &conversationv1.AddMembers{Members: users(protocol.MaxMembersPerAdd)}}},
		{Action: &conversationv1.Body_RemoveMember{RemoveMember: &conversationv1.RemoveMember{Member: longestUser}}},
		{Action: &conversationv1.Body_Leave{Leave: &conversationv1.Leave{}}},
		{Action: &conversationv1.Body_Rename{Rename: &conversationv1.Rename{Name: worst(protocol.MaxNameBytes)}}},
		{Action: &conversationv1.Body_Edit{Edit: &conversationv1.Edit{
			Target: protocol.MaxSeq, Text: worst(protocol.MaxTextBytes), Metadata: largestMetadata(),
		}}},
		{Action: &conversationv1.Body_Delete{Delete: &conversationv1.Delete{Target: protocol.MaxSeq}}},
		{Action: &conversationv1.Body_React{React: &conversationv1.React{
			Target: protocol.MaxSeq, Emoji: worst(protocol.MaxEmojiBytes), Remove: true,
		}}},
		{Action: &conversationv1.Body_Erase{Erase: &conversationv1.Erase{Seqs: []uint64{protocol.MaxSeq}}}},
	}
}

// TestTheLargestConnectFits: a client may use every limit of connect at the same time, in both encodings.
func TestTheLargestConnectFits(t *testing.T) {
	for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
		size := len(frame.AppendClient(nil, codec, &clientv1.ClientFrame{Id: maxID, Request: &clientv1.ClientFrame_Connect{Connect: largestConnect()}}))
		t.Logf("%s: %d bytes", codec.Subprotocol(), size)
		require.LessOrEqual(t, size, protocol.MaxConnectBytes, codec.Subprotocol())
	}
	require.LessOrEqual(t, protocol.MaxConnectBytes, protocol.MaxFrameBytes)
}

// TestEverythingElseFits: every other frame also fits, and so does every message that is made from it.
func TestEverythingElseFits(t *testing.T) {
	requests := map[string]*clientv1.ClientFrame{
		"refresh": {Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{Token: strings.Repeat("t", protocol.MaxTokenBytes)}}},
	}
	ack := &clientv1.Ack{}
	for range protocol.MaxAckPositions {
		ack.Positions = append(ack.Positions, &clientv1.AckPosition{ConversationId: longestConversation, Delivered: protocol.MaxSeq, Read: protocol.MaxSeq})
	}
	requests["ack"] = &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: ack}}
	seen := map[conversationv1.EventKind]bool{}
	for _, body := range largestBodies() {
		kind := conversation.KindOf(body)
		seen[kind] = true
		requests[kind.String()] = &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{
			ConversationId: longestConversation, CommandId: strings.Repeat("c", protocol.CommandIDBytes), Body: body,
			Traceparent: "00-" + strings.Repeat("a", 32) + "-" + strings.Repeat("b", 16) + "-01", Attempt: protocol.MaxAttempt,
		}}}
		encoded, err := conversation.EncodeBody(body)
		require.NoError(t, err)
		require.Less(t, len(encoded)+1024, broker.MaxCommandBytes, kind)
	}
	for _, kind := range conversation.Kinds() {
		require.True(t, seen[kind], "kind %d is missing from this test", kind)
	}
	largest := 0
	for name, request := range requests {
		request.Id = maxID
		for _, codec := range []frame.Codec{frame.Proto, frame.JSON} {
			size := len(frame.AppendClient(nil, codec, request))
			largest = max(largest, size)
			require.LessOrEqual(t, size, protocol.MaxFrameBytes, "%s %s", name, codec.Subprotocol())
		}
	}
	t.Logf("the largest has %d of %d bytes", largest, protocol.MaxFrameBytes)
}

// TestTheLargestBodiesAreAllowed: the frames above are no larger than allowed frames. They contain characters that texts
// must not contain, so these characters are replaced here.
func TestTheLargestBodiesAreAllowed(t *testing.T) {
	for _, body := range largestBodies() {
		switch {
		case body.GetCreate() != nil:
			body.GetCreate().Name = strings.ReplaceAll(body.GetCreate().GetName(), "\x01", "x")
		case body.GetMessage() != nil:
			body.GetMessage().Text = strings.ReplaceAll(body.GetMessage().GetText(), "\x01", "x")
		case body.GetRename() != nil:
			body.GetRename().Name = strings.ReplaceAll(body.GetRename().GetName(), "\x01", "x")
		case body.GetEdit() != nil:
			body.GetEdit().Text = strings.ReplaceAll(body.GetEdit().GetText(), "\x01", "x")
		case body.GetReact() != nil:
			body.GetReact().Emoji = strings.ReplaceAll(body.GetReact().GetEmoji(), "\x01", "x")
		}
		require.Nil(t, conversation.Validate("ann", body), conversation.KindOf(body))
	}
}
