package session

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const (
	// compareBeats is the number of heartbeats after which memberships are compared with the store. The comparison
	// repairs lost notices of memberships. It is needed for conversations that have no other member on this gateway.
	compareBeats = 4
	// usersPerCall is the number of users that one call of history compares.
	usersPerCall = 500
	// compareSlack allows for clock differences: a comparison also asks for memberships that changed up to this time
	// before the last comparison. Events have the broker's time, comparisons have this gateway's time.
	compareSlack = 2 * time.Minute
)

// compared records the last comparison of a user's memberships with the store. Guarded by Sessions.mu.
type compared struct {
	digest uint64    // of the memberships at the last comparison; 0 if there was no comparison
	at     time.Time // of the last comparison; time of the first connection if there was no comparison
}

// WatchMemberships compares the memberships of the users of this gateway with the store, periodically and after Relist,
// until ctx ends. One call compares hundreds of users. The comparison makes up for lost notices, also of memberships that
// have ended again.
func (a *Sessions) WatchMemberships(ctx context.Context) {
	interval := compareBeats * a.deps.Config.Heartbeat
	for {
		timer := time.NewTimer(interval*3/4 + rand.N(interval/2+1)) // random, so that gateways that started together do not call together
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-a.missed:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
		if err := a.compareAll(ctx); err != nil && ctx.Err() == nil {
			a.deps.Log.Warn("could not compare memberships with the store; trying again later", "error", err)
		}
	}
}

// comparison is a user whose memberships are to be compared.
type comparison struct {
	user ids.User
	compared
}

// compareAll compares all users once.
func (a *Sessions) compareAll(ctx context.Context) error {
	for part := range slices.Chunk(a.comparisons(), usersPerCall) {
		for len(part) > 0 {
			done, err := a.compare(ctx, part)
			if err != nil {
				return err
			}
			part = part[done:]
		}
	}
	return nil
}

// comparisons returns the users with sessions, by id.
func (a *Sessions) comparisons() []comparison {
	a.mu.Lock()
	defer a.mu.Unlock()
	users := make([]comparison, 0, len(a.users))
	for _, u := range a.users {
		if len(u.sessions) > 0 {
			users = append(users, comparison{u.id, u.compared})
		}
	}
	slices.SortFunc(users, func(x, y comparison) int { return cmp.Compare(x.user, y.user) })
	return users
}

// compare compares some users, by rising id. done is the number of users that fitted into the answer.
func (a *Sessions) compare(ctx context.Context, users []comparison) (done int, err error) {
	now := time.Now()
	request, since, known := &historyv1.CompareMembershipsRequest{}, now, make(map[ids.User]uint64, len(users))
	for _, u := range users {
		known[u.user] = u.digest
		request.Users = append(request.Users, &historyv1.KnownMemberships{UserId: string(u.user), Digest: u.digest})
		if u.at.Before(since) {
			since = u.at
		}
	}
	request.SinceMs = max(since.Add(-compareSlack).UnixMilli(), 0)
	limited, cancel := context.WithTimeout(ctx, a.deps.Config.HistoryTimeout)
	defer cancel()
	a.deps.Metrics.Reads[metrics.ReadCompare].Inc()
	answer, err := a.deps.History.CompareMemberships(limited, request)
	if status.Code(err) == codes.Unimplemented {
		return len(users), a.listEach(ctx, users) // the history service is older than this gateway, which happens during an upgrade
	}
	if err != nil {
		return 0, fmt.Errorf("compare memberships of %d users: %w", len(users), err)
	}
	done = len(users)
	if n := len(answer.GetUsers()); answer.GetMore() && n > 0 {
		last := answer.GetUsers()[n-1].GetUserId()
		done = cmp.Or(1+slices.IndexFunc(users, func(u comparison) bool { return string(u.user) == last }), done)
	}
	digests := map[ids.User]uint64{}
	for _, changed := range answer.GetUsers() {
		user := ids.User(changed.GetUserId())
		for _, m := range changed.GetMemberships() {
			a.Joined(user, ids.Conversation(m.GetConversationId()), ids.Seq(m.GetJoinedSeq()))
		}
		if changed.GetMore() || (known[user] != 0 && len(changed.GetMemberships()) == 0) { // too many memberships for the answer, or the store was restored to an older state
			if err := a.listOne(ctx, user); err != nil {
				return 0, err
			}
		}
		digests[user] = changed.GetDigest()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range users[:done] {
		if u := a.users[c.user]; u != nil {
			u.compared = compared{cmp.Or(digests[c.user], c.digest), now}
		}
	}
	return done, nil
}

// listEach lists the conversations of users one by one.
func (a *Sessions) listEach(ctx context.Context, users []comparison) error {
	for _, u := range users {
		if err := a.listOne(ctx, u.user); err != nil {
			return err
		}
	}
	return nil
}

// listOne notifies the sessions of a user of all present memberships.
func (a *Sessions) listOne(ctx context.Context, user ids.User) error {
	summaries, _, err := a.listAll(ctx, user)
	for _, summary := range summaries {
		a.Joined(user, ids.Conversation(summary.GetConversationId()), ids.Seq(summary.GetJoinedSeq()))
	}
	return err
}
