package requests_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/protocol"
)

// A malformed request is refused before anything is called, and the error names the field.
func TestMalformedRequestsAreRefused(t *testing.T) {
	longID := strings.Repeat("u", protocol.MaxIDBytes+1)
	for name, c := range map[string]struct {
		frame *clientv1.ClientFrame
		field string
	}{
		"read: no conversation":        {read(&clientv1.Read{}), "read.conversation_id"},
		"read: not a conversation":     {read(&clientv1.Read{ConversationId: "x"}), "read.conversation_id"},
		"read: too many":               {read(&clientv1.Read{ConversationId: groupID, Limit: protocol.MaxPage + 1}), "read.limit"},
		"read: after and before":       {read(&clientv1.Read{ConversationId: groupID, After: 1, Before: 2}), "read.after"},
		"read: after and backward":     {read(&clientv1.Read{ConversationId: groupID, After: 1, Backward: true}), "read.after"},
		"messages: no conversation":    {readMessages(&clientv1.ReadMessages{}), "read_messages.conversation_id"},
		"messages: too many":           {readMessages(&clientv1.ReadMessages{ConversationId: groupID, Limit: protocol.MaxMessagesPage + 1}), "read_messages.limit"},
		"messages: after and before":   {readMessages(&clientv1.ReadMessages{ConversationId: groupID, After: 1, Before: 2}), "read_messages.after"},
		"messages: after and backward": {readMessages(&clientv1.ReadMessages{ConversationId: groupID, After: 1, Backward: true}), "read_messages.after"},
		"conversations: after":         {listConversations(&clientv1.ListConversations{After: "x"}), "list_conversations.after"},
		"conversations: too many":      {listConversations(&clientv1.ListConversations{Limit: protocol.MaxPage + 1}), "list_conversations.limit"},
		"members: no conversation":     {listMembers(&clientv1.ListMembers{}), "list_members.conversation_id"},
		"members: after is not a user": {listMembers(&clientv1.ListMembers{ConversationId: groupID, After: longID}), "list_members.after"},
		"members: too many":            {listMembers(&clientv1.ListMembers{ConversationId: groupID, Limit: protocol.MaxPage + 1}), "list_members.limit"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, nil)
			request, refused := s.Parse(c.frame)
			require.Nil(t, request)
			require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_INVALID, refused.GetCode())
			require.Equal(t, c.field, refused.GetField())
			require.NotEmpty(t, refused.GetMessage())
			require.False(t, s.history.asked())
		})
	}
}

// A value at a limit is accepted.
func TestRequestsAtTheirLimitsAreTaken(t *testing.T) {
	for name, f := range map[string]*clientv1.ClientFrame{
		"read after":           read(&clientv1.Read{ConversationId: groupID, After: 1, Limit: protocol.MaxPage}),
		"read before":          read(&clientv1.Read{ConversationId: groupID, Before: 1}),
		"read before backward": read(&clientv1.Read{ConversationId: groupID, Before: 1, Backward: true}),
		"messages":             readMessages(&clientv1.ReadMessages{ConversationId: groupID, Limit: protocol.MaxMessagesPage}),
		"messages before":      readMessages(&clientv1.ReadMessages{ConversationId: groupID, Before: 9, Backward: true}),
		"conversations":        listConversations(&clientv1.ListConversations{After: groupID, Limit: protocol.MaxPage}),
		"members":              listMembers(&clientv1.ListMembers{ConversationId: groupID, After: strings.Repeat("u", protocol.MaxIDBytes), Limit: protocol.MaxPage}),
	} {
		t.Run(name, func(t *testing.T) {
			request, refused := newStage(t, nil).Parse(f)
			require.Nil(t, refused)
			require.NotNil(t, request)
		})
	}
}

// A frame without a request of the table is left to the session.
func TestOtherFramesHaveNoRequest(t *testing.T) {
	for name, f := range map[string]*clientv1.ClientFrame{
		"empty":   {},
		"id only": {Id: 7},
		"connect": {Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{}}},
		"refresh": {Request: &clientv1.ClientFrame_Refresh{Refresh: &clientv1.Refresh{}}},
		"submit":  {Request: &clientv1.ClientFrame_Submit{Submit: &clientv1.Submit{}}},
		"ack":     {Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{}}},
		"pong":    {Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}},
	} {
		t.Run(name, func(t *testing.T) {
			request, refused := newStage(t, nil).Parse(f)
			require.Nil(t, request)
			require.Nil(t, refused)
		})
	}
}
