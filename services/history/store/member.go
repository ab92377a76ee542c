package store

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Members stores conversations and their members.
type Members interface {
	// Conversations returns states from one snapshot; conversations that do not exist are left out. ErrTooLarge if they
	// have more than MaxStateMembers members in total, unless only one was requested.
	Conversations(ctx context.Context, ids []string) ([]*historyv1.ConversationState, error)
	// ListConversations returns the conversations that a user is a member of now, and the time since which the user's
	// tokens are valid.
	ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error)
	// FindMemberships returns a user's newest membership in each of the requested conversations, even if it has ended.
	// Conversations that the user never was a member of are left out.
	FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest) ([]*historyv1.NewestMembership, error)
	// CountMemberships returns how many conversations users are members of now; users without conversations are left out.
	CountMemberships(ctx context.Context, users []string) ([]*historyv1.MembershipCount, error)
	// CompareMemberships returns the users whose memberships differ from those that the caller knows.
	CompareMemberships(ctx context.Context, request *historyv1.CompareMembershipsRequest) (*historyv1.CompareMembershipsResponse, error)
	// ListMembers returns the current members. ErrNotFound if there is no such conversation or the viewer is not a member
	// now.
	ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error)
}
