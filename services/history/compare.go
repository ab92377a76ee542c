package history

import (
	"context"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// CompareMemberships returns the users whose memberships differ from those that the caller knows.
func (s *Server) CompareMemberships(ctx context.Context, request *historyv1.CompareMembershipsRequest) (*historyv1.CompareMembershipsResponse, error) {
	return do(ctx, s, s.metrics.compareMemberships, checkCompareMemberships(request), func(ctx context.Context) (*historyv1.CompareMembershipsResponse, error) {
		return s.store.CompareMemberships(ctx, request)
	})
}

func checkCompareMemberships(request *historyv1.CompareMembershipsRequest) error {
	if err := checkCount("users", len(request.GetUsers())); err != nil {
		return err
	}
	for i, user := range request.GetUsers() {
		if err := checkUser(fmt.Sprintf("users[%d].user_id", i), user.GetUserId()); err != nil {
			return err
		}
	}
	if request.GetSinceMs() < 0 {
		return store.Invalid("since_ms", "must not be negative")
	}
	return nil
}
