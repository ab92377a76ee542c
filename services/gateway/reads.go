package gateway

import (
	"context"
	"fmt"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/frame"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// maxMessages is the most messages that a client may ask for at once.
const maxMessages = 200

func (c *conn) readPage(id uint64, r *clientv1.Read) {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		c.refuse(id, codeInvalid, "read.conversation_id", "is not a conversation id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "read.limit", "must be at most 500")
		return
	case r.GetAfter() != 0 && (r.GetBefore() != 0 || r.GetBackward()):
		c.refuse(id, codeInvalid, "read.after", "cannot be used together with before or backward")
		return
	}
	limit := r.GetLimit()
	if limit == 0 {
		limit = 50
	}
	c.background(id, func(ctx context.Context) {
		request := &historyv1.ReadRequest{
			ConversationId: r.GetConversationId(), Viewer: c.user.id,
			After: r.GetAfter(), Before: r.GetBefore(), Limit: limit,
			Backward: r.GetBackward() || r.GetBefore() != 0,
		}
		page, err := c.gw.readForClient(ctx, request)
		if err != nil {
			c.refuseCall(id, err)
			return
		}
		trimPage(page, c.pageBytes())
		if c.waitForRoom() {
			c.gw.metrics.FramesOut.Inc()
			c.send(wrap(c.events, func(dst []byte) []byte {
				return frame.AppendPage(dst, c.events, id, &frame.Page{
					Events: page.GetEvents(), Hidden: page.GetHidden(), Head: page.GetHead(), More: page.GetMore(),
				})
			}))
		}
	})
}

// readForClient reads a page, and checks that no event is missing in it.
func (g *Gateway) readForClient(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	g.metrics.Reads[metrics.ReadClient].Inc()
	page, err := g.history.Read(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("read conversation: %w", err)
	}
	if request.GetBackward() {
		err = checkFalling(request.GetConversationId(), page, request.GetBefore())
	} else {
		err = checkRising(request.GetConversationId(), page, request.GetAfter())
	}
	return page, err
}

// readMessages answers with messages as they are now.
func (c *conn) readMessages(id uint64, r *clientv1.ReadMessages) {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		c.refuse(id, codeInvalid, "read_messages.conversation_id", "is not a conversation id")
		return
	case r.GetLimit() > maxMessages:
		c.refuse(id, codeInvalid, "read_messages.limit", fmt.Sprintf("must be at most %d", maxMessages))
		return
	case r.GetAfter() != 0 && (r.GetBefore() != 0 || r.GetBackward()):
		c.refuse(id, codeInvalid, "read_messages.after", "cannot be used together with before or backward")
		return
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.Reads[metrics.ReadViews].Inc()
		page, err := c.gw.history.ReadMessages(ctx, &historyv1.ReadMessagesRequest{
			ConversationId: r.GetConversationId(), Viewer: c.user.id,
			After: r.GetAfter(), Before: r.GetBefore(), Limit: r.GetLimit(),
			Backward: r.GetBackward() || r.GetBefore() != 0,
			Kinds:    c.gw.messageKinds,
		})
		if err != nil {
			return nil, fmt.Errorf("read messages: %w", err)
		}
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Messages{Messages: messageViews(page, c.gw.cfg.SendQueueBytes/4)}}, nil
	})
}

// messageViews is a page of about limit bytes at most.
func messageViews(page *historyv1.ReadMessagesResponse, limit int) *clientv1.Messages {
	answer := &clientv1.Messages{Head: page.GetHead(), More: page.GetMore()}
	size := 0
	for i, stored := range page.GetMessages() {
		view := conversation.View(stored)
		if size += view.SizeVT(); size > limit && i > 0 {
			answer.More = true
			break
		}
		answer.Messages = append(answer.Messages, view)
	}
	return answer
}

func (c *conn) listConversations(id uint64, r *clientv1.ListConversations) {
	switch {
	case r.GetAfter() != "" && !conversation.ValidID(r.GetAfter()):
		c.refuse(id, codeInvalid, "list_conversations.after", "is not a conversation id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "list_conversations.limit", "must be at most 500")
		return
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.Reads[metrics.ReadList].Inc()
		list, err := c.gw.history.ListConversations(ctx, &historyv1.ListConversationsRequest{
			UserId: c.user.id, After: r.GetAfter(), Limit: r.GetLimit(),
		})
		if err != nil {
			return nil, fmt.Errorf("list conversations: %w", err)
		}
		conversations := make([]*clientv1.Conversation, 0, len(list.GetConversations()))
		for _, s := range list.GetConversations() {
			conversations = append(conversations, clientConversation(s))
		}
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Conversations{
			Conversations: &clientv1.Conversations{Conversations: conversations, More: list.GetMore()},
		}}, nil
	})
}

func (c *conn) listMembers(id uint64, r *clientv1.ListMembers) {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		c.refuse(id, codeInvalid, "list_members.conversation_id", "is not a conversation id")
		return
	case r.GetAfter() != "" && !conversation.ValidUser(r.GetAfter()):
		c.refuse(id, codeInvalid, "list_members.after", "is not a user id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "list_members.limit", "must be at most 500")
		return
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.Reads[metrics.ReadMembers].Inc()
		list, err := c.gw.history.ListMembers(ctx, &historyv1.ListMembersRequest{
			ConversationId: r.GetConversationId(), Viewer: c.user.id, After: r.GetAfter(), Limit: r.GetLimit(),
		})
		if err != nil {
			return nil, fmt.Errorf("list members: %w", err)
		}
		members := make([]*conversationv1.Cursor, 0, len(list.GetMembers()))
		for _, m := range list.GetMembers() {
			members = append(members, m.GetCursor())
		}
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Members{
			Members: &clientv1.Members{Members: members, More: list.GetMore()},
		}}, nil
	})
}

func clientConversation(s *historyv1.Summary) *clientv1.Conversation {
	return &clientv1.Conversation{
		ConversationId: s.GetConversationId(), Kind: s.GetKind(), Name: s.GetName(), Head: s.GetHead(),
		JoinedSeq: s.GetJoinedSeq(), Cursor: s.GetCursor(), Members: s.GetMembers(), Peer: s.GetPeer(),
	}
}
