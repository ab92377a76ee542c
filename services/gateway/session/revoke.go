package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Revocation. An operator revokes the tokens of a user that were issued up to a given time. The store saves this time before the
// notice is published, so no token is missed:
//
//   - A session is registered with its user before it asks the store for revocations, together with the list of conversations. If the revocation is not in the store yet, the notice comes later, and finds the session.
//   - In case a notice is lost, revocations are also read from the store every few seconds, and at once when the connection to the broker is restored.
//   - A token that replaces another is checked against the store, and then against notices that arrived meanwhile.
//
// Tokens state their time of issue in whole seconds. A token issued in the second of the revocation counts as issued before it; a
// token without a time of issue counts as issued before any revocation.

const tokenRevoked = "the token was revoked"

// clockSlack is how far the store's clock may be behind this gateway's clock.
const clockSlack = time.Hour

func issuedMs(claims auth.Claims) int64 {
	if claims.IssuedAt.IsZero() {
		return 0
	}
	return claims.IssuedAt.UnixMilli()
}

// Revoke closes the sessions of a user whose tokens were issued up to a time, Unix ms.
func (a *Sessions) Revoke(userID ids.User, before int64) { a.revoke(userID, before, nil) }

// revoke is Revoke without the session but, which the caller handles. A time of 0 revokes nothing.
func (a *Sessions) revoke(userID ids.User, before int64, but *Session) {
	if before == 0 {
		return
	}
	var worthless []*Session
	a.mu.Lock()
	if u := a.users[userID]; u != nil {
		u.revoked = max(u.revoked, before)
		for s := range u.sessions {
			if s != but && s.issued <= u.revoked {
				worthless = append(worthless, s)
			}
		}
	}
	a.mu.Unlock()
	for _, s := range worthless {
		if s.link.Close(errcode.CloseUnauthenticated, tokenRevoked) {
			a.deps.Metrics.Revoked.Inc()
		}
	}
}

// isRevoked reports whether the session's token was revoked, as far as this gateway knows.
func (a *Sessions) isRevoked(s *Session) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.user.revoked != 0 && s.issued <= s.user.revoked
}

// replaceToken replaces the session's token by a newer one. It returns false if the newer one is revoked.
func (a *Sessions) replaceToken(s *Session, claims auth.Claims) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	issued := issuedMs(claims)
	if s.user.revoked != 0 && issued <= s.user.revoked {
		return false
	}
	s.issued = issued
	return true
}

// askRevocation reads the revocation of one user from the store.
func (a *Sessions) askRevocation(ctx context.Context, userID ids.User) error {
	a.deps.Metrics.Reads[metrics.ReadRevocations].Inc()
	answer, err := a.deps.History.GetRevocations(ctx, &historyv1.GetRevocationsRequest{UserId: string(userID)})
	if err != nil && !tooOld(err) {
		return fmt.Errorf("read the user's revocation: %w", err)
	}
	for _, r := range answer.GetRevocations() {
		if ids.User(r.GetUserId()) == userID {
			a.Revoke(userID, r.GetBeforeMs())
		}
	}
	return nil
}

// tooOld reports whether the history service is too old to store revocations, which happens during an upgrade.
func tooOld(err error) bool { return status.Code(err) == codes.Unimplemented }

// WatchRevocations reads recent revocations periodically until ctx ends. Revocations from before this gateway started are read
// when a client connects.
func (a *Sessions) WatchRevocations(ctx context.Context) {
	since, interval := time.Now().Add(-clockSlack).UnixMilli(), a.deps.Config.RevocationInterval
	for ctx.Err() == nil {
		timer := time.NewTimer(interval*3/4 + rand.N(interval/2+1))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-a.unheard:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		newest, err := a.readRevocations(ctx, since)
		if err != nil && ctx.Err() == nil {
			a.deps.Log.Warn("revoked tokens could not be read; retrying soon", "error", err)
		}
		since = max(since, newest) // the store gives each revocation a later time than the one before, so none is skipped
	}
}

// readRevocations applies all revocations since a time and returns the time of the newest one.
func (a *Sessions) readRevocations(ctx context.Context, since int64) (newest int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.deps.Config.HistoryTimeout)
	defer cancel()
	for {
		a.deps.Metrics.Reads[metrics.ReadRevocations].Inc()
		answer, err := a.deps.History.GetRevocations(ctx, &historyv1.GetRevocationsRequest{SinceMs: since})
		if err != nil && !tooOld(err) {
			return newest, fmt.Errorf("read revoked tokens since %s: %w", time.UnixMilli(since).UTC().Format(time.RFC3339), err)
		}
		for _, r := range answer.GetRevocations() {
			a.Revoke(ids.User(r.GetUserId()), r.GetBeforeMs())
			newest = max(newest, r.GetBeforeMs())
		}
		if !answer.GetMore() || newest <= since {
			return newest, nil
		}
		since = newest
	}
}
