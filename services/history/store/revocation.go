package store

import (
	"context"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Revocations knows which tokens are worthless.
type Revocations interface {
	// Revoke makes tokens of a user that were issued up to now worthless, and gives the time that is in force: see MaxRevocationLeadMs.
	Revoke(ctx context.Context, user string) (beforeMs int64, err error)
	// Revocations gives what was revoked after a time, at most MaxPage, oldest first.
	Revocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error)
}

// MaxRevocationLeadMs is how far the time of a revocation may run ahead of the clock. Times of revocations rise from one to
// the next, whoever is revoked: one that is stored later has a later time than all that anybody can have read before.
// So a time is enough to ask what is new, without a gap and without a repeat. When the clock is behind the newest
// revocation the time runs ahead of it, but no further than this: beyond, the clock must have been wrong, and users who
// sign in anew are not to be locked out for as long as it was. Who asks what is new misses a revocation then.
const MaxRevocationLeadMs = 60_000
