package history

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// FindMemberships returns a user's newest membership in each of the requested conversations.
func (s *Server) FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest) (*historyv1.FindMembershipsResponse, error) {
	invalid := checkUser("user_id", request.GetUserId())
	if invalid == nil {
		invalid = checkConversations(request.GetConversationIds())
	}
	return do(ctx, s, s.metrics.findMemberships, invalid, func(ctx context.Context) (*historyv1.FindMembershipsResponse, error) {
		found, err := s.store.FindMemberships(ctx, request)
		return &historyv1.FindMembershipsResponse{Memberships: found}, err
	})
}

// CountMemberships returns, for each of the requested users, the number of conversations that the user is a member of
// now.
func (s *Server) CountMemberships(ctx context.Context, request *historyv1.CountMembershipsRequest) (*historyv1.CountMembershipsResponse, error) {
	return do(ctx, s, s.metrics.countMemberships, checkUsers(request.GetUserIds()), func(ctx context.Context) (*historyv1.CountMembershipsResponse, error) {
		counts, err := s.store.CountMemberships(ctx, request.GetUserIds())
		return &historyv1.CountMembershipsResponse{Counts: counts}, err
	})
}

func checkUsers(list []string) error {
	if err := checkCount("user_ids", len(list)); err != nil {
		return err
	}
	for i, user := range list {
		if err := checkUser(fmt.Sprintf("user_ids[%d]", i), user); err != nil {
			return err
		}
	}
	return nil
}
