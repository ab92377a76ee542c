package store

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Members knows conversations and who is a member of them.
type Members interface {
	// Conversations gives states from one snapshot; those that do not exist are left out. ErrTooLarge when they have more
	// than MaxStateMembers members together, unless a single one was asked for.
	Conversations(ctx context.Context, ids []string) ([]*historyv1.ConversationState, error)
	// ListConversations gives the conversations that a user is a member of now, and since when tokens are good.
	ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error)
	// ListMembers gives present members. ErrNotFound when there is no such conversation or the viewer is not a member now.
	ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error)
}
