package admin

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

// shownMembers is the number of members that are returned with a conversation's state; ListMembers returns all members.
const shownMembers = 100

var errNoConversation = status.Error(codes.NotFound, "there is no such conversation")

// ListConversations lists the conversations that a user is a member of.
func (s *Server) ListConversations(ctx context.Context, request *adminv1.ListConversationsRequest) (*adminv1.ListConversationsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	user, err := userNamed("user_id", request.GetUserId())
	if err != nil {
		return nil, err
	}
	page, err := s.History.ListConversations(ctx, &historyv1.ListConversationsRequest{
		UserId: user, After: request.GetAfter(), Limit: request.GetLimit(),
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListConversationsResponse{Conversations: page.GetConversations(), More: page.GetMore()}, nil
}

// GetConversation returns the state of one conversation, and the worker that owns its partition.
func (s *Server) GetConversation(ctx context.Context, request *adminv1.GetConversationRequest) (*adminv1.GetConversationResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id := ids.Conversation(request.GetConversationId())
	if !conversation.ValidID(string(id)) {
		return nil, invalidID()
	}
	found, err := s.History.GetConversations(ctx, &historyv1.GetConversationsRequest{ConversationIds: []string{string(id)}})
	if err != nil {
		return nil, err
	}
	if len(found.GetConversations()) == 0 {
		return nil, errNoConversation
	}
	leases, err := s.History.ListLeases(ctx, &historyv1.ListLeasesRequest{})
	if err != nil {
		return nil, err
	}
	state := found.GetConversations()[0]
	members := slices.SortedFunc(slices.Values(state.GetMembers()), func(a, b *historyv1.Member) int {
		return cmp.Compare(a.GetCursor().GetUserId(), b.GetCursor().GetUserId())
	})
	partition := conversation.Partition(id, s.Partitions)
	response := &adminv1.GetConversationResponse{
		Members: uint32(len(members)), Partition: uint32(partition), Owner: ownerOf(leases, partition),
		State: &historyv1.ConversationState{
			ConversationId: string(id), Kind: state.GetKind(), Name: state.GetName(), Creator: state.GetCreator(), Head: state.GetHead(),
			HeadHash: state.GetHeadHash(), Members: members[:min(len(members), shownMembers)],
		},
	}
	return response, nil
}

// ListMembers lists a conversation's members with their cursors.
func (s *Server) ListMembers(ctx context.Context, request *adminv1.ListMembersRequest) (*adminv1.ListMembersResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	page, err := s.History.ListMembers(ctx, &historyv1.ListMembersRequest{
		ConversationId: request.GetConversationId(), After: request.GetAfter(), Limit: request.GetLimit(),
	})
	if err != nil {
		return nil, err
	}
	head, err := s.head(ctx, ids.Conversation(request.GetConversationId()))
	if err != nil {
		return nil, err
	}
	return &adminv1.ListMembersResponse{Members: page.GetMembers(), More: page.GetMore(), Head: head.GetHead()}, nil
}

// head returns the head of a conversation, or NOT_FOUND.
func (s *Server) head(ctx context.Context, id ids.Conversation) (*historyv1.Head, error) {
	if !conversation.ValidID(string(id)) {
		return nil, invalidID()
	}
	found, err := s.History.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: []string{string(id)}})
	if err != nil {
		return nil, err
	}
	if len(found.GetHeads()) == 0 {
		return nil, errNoConversation
	}
	return found.GetHeads()[0], nil
}

func invalidID() error { return invalid("conversation_id: must be d or g and 26 digits 0-9 a-v") }
