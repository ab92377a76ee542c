package store

import (
	"context"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Revocations stores which users' tokens are revoked.
type Revocations interface {
	// Revoke revokes the tokens issued to a user up to now. It returns the time in force, which may be later than now:
	// see MaxRevocationLeadMs.
	Revoke(ctx context.Context, user ids.User) (beforeMs int64, err error)
	// Revocations returns the revocations after a time, at most MaxPage, oldest first.
	Revocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error)
}

// MaxRevocationLeadMs is how far the time of a revocation may be ahead of the clock. Times of revocations rise across all
// users: a revocation that is stored later has a later time than all revocations stored before. Therefore a reader can
// read new revocations by time alone, without a gap and without a repeat. If the clock is behind the newest revocation,
// the new time is ahead of the clock, but by no more than this limit. If it would have to be further ahead, the clock was
// wrong before, and users who sign in again must not be locked out for that long. Then the time does not rise, and a
// reader by time misses the revocation.
const MaxRevocationLeadMs = 60_000
