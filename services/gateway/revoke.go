package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Revocation. An operator makes the tokens of a user that were issued up to some time worthless. The store holds the time
// before the notice of it goes out, so no token slips through:
//
//   - A connection is entered into its user's before the store is asked, with the list of conversations. If the store did not
//     know yet, the notice comes later, and finds the connection.
//   - A notice that is lost is made up for by reading revocations from the store every few seconds, and at once when the
//     connection to the broker comes back.
//   - A token that replaces another is held to the store, and then once more to what notices said meanwhile.
//
// Tokens say in whole seconds when they were issued. One issued in the second of the revocation counts as issued before it;
// one that does not say counts as issued before anything.

const tokenRevoked = "the token was revoked"

// clockSlack is how much the clock of the store may be behind this one's.
const clockSlack = time.Hour

func issuedMs(claims auth.Claims) int64 {
	if claims.IssuedAt.IsZero() {
		return 0
	}
	return claims.IssuedAt.UnixMilli()
}

// revoke closes the connections of a user whose tokens were issued up to a time, unix ms, but for one that is dealt with by
// the caller. A time of 0 revokes nothing.
func (g *Gateway) revoke(userID string, before int64, but *conn) {
	if before == 0 {
		return
	}
	var worthless []*conn
	g.mu.Lock()
	if u := g.users[userID]; u != nil {
		u.revoked = max(u.revoked, before)
		for c := range u.conns {
			if c != but && c.issued <= u.revoked {
				worthless = append(worthless, c)
			}
		}
	}
	g.mu.Unlock()
	for _, c := range worthless {
		if c.close(errcode.CloseUnauthenticated, tokenRevoked) {
			g.metrics.Revoked.Inc()
		}
	}
}

// isRevoked reports whether the connection's token was revoked, as far as this gateway has heard.
func (g *Gateway) isRevoked(c *conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return c.user.revoked != 0 && c.issued <= c.user.revoked
}

// replaceToken has a connection live on a newer token. It reports false when that is revoked.
func (g *Gateway) replaceToken(c *conn, claims auth.Claims) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	issued := issuedMs(claims)
	if c.user.revoked != 0 && issued <= c.user.revoked {
		return false
	}
	c.issued = issued
	return true
}

// askRevocation asks the store what is revoked of one user.
func (g *Gateway) askRevocation(ctx context.Context, userID string) error {
	g.metrics.Reads[metrics.ReadRevocations].Inc()
	answer, err := g.history.GetRevocations(ctx, &historyv1.GetRevocationsRequest{UserId: userID})
	if err != nil && !tooOld(err) {
		return fmt.Errorf("ask for revoked tokens: %w", err)
	}
	for _, r := range answer.GetRevocations() {
		if r.GetUserId() == userID {
			g.revoke(userID, r.GetBeforeMs(), nil)
		}
	}
	return nil
}

// tooOld reports whether the history service is of a version that stores no revocations, during an upgrade.
func tooOld(err error) bool { return status.Code(err) == codes.Unimplemented }

// onRevoked takes notices from revoked.
func (g *Gateway) onRevoked(msg *nats.Msg) {
	var notice brokerv1.Revoked
	if err := proto.Unmarshal(msg.Data, &notice); err != nil {
		g.log.Error("a notice of revoked tokens cannot be decoded", "error", err)
		return
	}
	g.log.Info("tokens were revoked", "user", notice.GetUserId(), "issued_until", time.UnixMilli(notice.GetBeforeMs()))
	g.revoke(notice.GetUserId(), notice.GetBeforeMs(), nil)
}

// watchRevocations reads what was revoked lately, again and again. What was revoked before this gateway started is asked for
// when a client connects.
func (g *Gateway) watchRevocations(ctx context.Context) {
	since := time.Now().Add(-clockSlack).UnixMilli()
	for ctx.Err() == nil {
		timer := time.NewTimer(g.cfg.RevocationInterval*3/4 + rand.N(g.cfg.RevocationInterval/2+1))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-g.unheard:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		newest, err := g.readRevocations(ctx, since)
		if err != nil && ctx.Err() == nil {
			g.log.Warn("revoked tokens could not be read; the next try comes soon", "error", err)
		}
		since = max(since, newest) // the store's times rise from one revocation to the next, so nothing is skipped
	}
}

// metrics.ReadRevocations acts on everything revoked since a time and gives the newest time of it.
func (g *Gateway) readRevocations(ctx context.Context, since int64) (newest int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.cfg.HistoryTimeout)
	defer cancel()
	for {
		g.metrics.Reads[metrics.ReadRevocations].Inc()
		page, err := g.history.GetRevocations(ctx, &historyv1.GetRevocationsRequest{SinceMs: since})
		if err != nil && !tooOld(err) {
			return newest, fmt.Errorf("read revoked tokens since %s: %w", time.UnixMilli(since).UTC().Format(time.RFC3339), err)
		}
		for _, r := range page.GetRevocations() {
			g.revoke(r.GetUserId(), r.GetBeforeMs(), nil)
			newest = max(newest, r.GetBeforeMs())
		}
		if !page.GetMore() || newest <= since {
			return newest, nil
		}
		since = newest
	}
}
