package requests

import (
	"cmp"
	"context"
	"fmt"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

func checkListConversations(r *clientv1.ListConversations) *conversationv1.Error {
	switch {
	case r.GetAfter() != "" && !conversation.ValidID(r.GetAfter()):
		return invalid("list_conversations.after", "is not a conversation id")
	case r.GetLimit() > protocol.MaxPage:
		return invalid("list_conversations.limit", fmt.Sprintf("must be at most %d", protocol.MaxPage))
	}
	return nil
}

// listConversations lists the user's conversations, by id.
func (h *Handler) listConversations(ctx context.Context, caller *Caller, r *clientv1.ListConversations, bounds Bounds) (Answer, error) {
	h.cfg.Metrics.Reads[metrics.ReadList].Inc()
	list, err := h.cfg.History.ListConversations(ctx, &historyv1.ListConversationsRequest{
		UserId: string(caller.User), After: r.GetAfter(), Limit: cmp.Or(r.GetLimit(), protocol.DefaultListPage),
	})
	if err != nil {
		return nil, fmt.Errorf("list conversations: %w", err)
	}
	conversations := make([]*clientv1.Conversation, 0, len(list.GetConversations()))
	for _, s := range list.GetConversations() {
		conversations = append(conversations, Conversation(s))
	}
	conversations, cut := upTo(bounds.Bytes, conversations)
	return answer{&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Conversations{
		Conversations: &clientv1.Conversations{Conversations: conversations, More: cut || list.GetMore()},
	}}}, nil
}

func checkListMembers(r *clientv1.ListMembers) *conversationv1.Error {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		return invalid("list_members.conversation_id", "is not a conversation id")
	case r.GetAfter() != "" && !conversation.ValidUser(r.GetAfter()):
		return invalid("list_members.after", "is not a user id")
	case r.GetLimit() > protocol.MaxPage:
		return invalid("list_members.limit", fmt.Sprintf("must be at most %d", protocol.MaxPage))
	}
	return nil
}

// listMembers lists the members of a conversation with their cursors, by user id.
func (h *Handler) listMembers(ctx context.Context, caller *Caller, r *clientv1.ListMembers, bounds Bounds) (Answer, error) {
	h.cfg.Metrics.Reads[metrics.ReadMembers].Inc()
	list, err := h.cfg.History.ListMembers(ctx, &historyv1.ListMembersRequest{
		ConversationId: r.GetConversationId(), Viewer: string(caller.User), After: r.GetAfter(), Limit: cmp.Or(r.GetLimit(), protocol.DefaultListPage),
	})
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	members := make([]*conversationv1.Cursor, 0, len(list.GetMembers()))
	for _, m := range list.GetMembers() {
		members = append(members, m.GetCursor())
	}
	members, cut := upTo(bounds.Bytes, members)
	return answer{&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Members{
		Members: &clientv1.Members{Members: members, More: cut || list.GetMore()},
	}}}, nil
}

// upTo returns the first items of a list: at least one, and together at most about limit bytes. cut is true if it left
// some out.
func upTo[T interface{ SizeVT() int }](limit int, items []T) (fit []T, cut bool) {
	size := 0
	for i, item := range items {
		if size += item.SizeVT(); size > limit && i > 0 {
			return items[:i], true
		}
	}
	return items, false
}

// Conversation is a conversation as clients see it in lists.
func Conversation(s *historyv1.Summary) *clientv1.Conversation {
	return &clientv1.Conversation{
		ConversationId: s.GetConversationId(), Kind: s.GetKind(), Name: s.GetName(), Head: s.GetHead(),
		JoinedSeq: s.GetJoinedSeq(), Cursor: s.GetCursor(), Members: s.GetMembers(), Peer: s.GetPeer(),
	}
}
