package storetest

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

func revoke(t *testing.T, s store.Store, user string) int64 {
	t.Helper()
	beforeMs, err := s.Revoke(t.Context(), ids.User(user))
	require.NoError(t, err)
	return beforeMs
}

// revocations reads the revocations since a time page by page, like a gateway that missed notices.
func revocations(t *testing.T, s store.Store, sinceMs int64) []*historyv1.Revocation {
	t.Helper()
	var all []*historyv1.Revocation
	for {
		page, err := s.Revocations(t.Context(), &historyv1.GetRevocationsRequest{SinceMs: sinceMs})
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.GetRevocations()), store.MaxPage)
		for _, revocation := range page.GetRevocations() {
			require.Greater(t, revocation.GetBeforeMs(), sinceMs, "times rise from one to the next")
			sinceMs = revocation.GetBeforeMs()
			all = append(all, revocation)
		}
		if !page.GetMore() {
			return all
		}
	}
}

func revokedBefore(t *testing.T, s store.Store, user string) int64 {
	t.Helper()
	list, err := s.ListConversations(t.Context(), &historyv1.ListConversationsRequest{UserId: user})
	require.NoError(t, err)
	return list.GetRevokedBeforeMs()
}

func testRevocations(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("the list of conversations contains the revocation, even if the list is empty", func(t *testing.T) {
		db, _, _ := group(t, subject)
		require.Zero(t, revokedBefore(t, db, "alice"))
		begun := time.Now().UnixMilli()
		alice, nobody := revoke(t, db, "alice"), revoke(t, db, "nobody")
		require.InDelta(t, begun, alice, float64(time.Hour.Milliseconds()))
		require.Equal(t, alice, revokedBefore(t, db, "alice"))
		require.Equal(t, nobody, revokedBefore(t, db, "nobody"))
		require.Zero(t, revokedBefore(t, db, "bob"))
		require.Less(t, alice, nobody)

		again := revoke(t, db, "alice")
		require.Greater(t, again, nobody)
		require.Equal(t, again, revokedBefore(t, db, "alice"))
		all := revocations(t, db, 0)
		require.Len(t, all, 2, "of each user only the revocation in force")
		require.Equal(t, "nobody", all[0].GetUserId())
		require.Equal(t, "alice", all[1].GetUserId())
		require.Len(t, revocations(t, db, nobody), 1)
		require.Empty(t, revocations(t, db, again))
	})

	t.Run("of one user", func(t *testing.T) {
		db := subject.New(t)
		alice := revoke(t, db, "alice")
		revoke(t, db, "bob")
		for since, want := range map[int64]int{0: 1, alice - 1: 1, alice: 0} {
			page, err := db.Revocations(t.Context(), &historyv1.GetRevocationsRequest{UserId: "alice", SinceMs: since})
			require.NoError(t, err)
			require.Len(t, page.GetRevocations(), want)
		}
	})

	t.Run("nothing is skipped between pages, however many are stored at once, nor by a concurrent reader", func(t *testing.T) {
		db := subject.New(t)
		storm(t, db, db)
	})
}

// storm revokes the tokens of many users at once through some stores, while a reader follows through the first store.
func storm(t *testing.T, stores ...store.Store) {
	t.Helper()
	const each, revokers = 300, 4
	done := make(chan struct{})
	seen := map[string]int64{}
	var following, running sync.WaitGroup
	following.Go(func() {
		var since int64
		for last := false; ; {
			for _, revocation := range revocations(t, stores[0], since) {
				seen[revocation.GetUserId()], since = revocation.GetBeforeMs(), revocation.GetBeforeMs()
			}
			if last {
				return
			}
			select {
			case <-done:
				last = true
			default:
			}
		}
	})
	want := make([]map[string]int64, revokers)
	for r := range want {
		want[r] = map[string]int64{}
		running.Go(func() {
			for i := range each {
				user := fmt.Sprintf("user-%d-%d", r, i)
				want[r][user] = revoke(t, stores[r%len(stores)], user)
			}
		})
	}
	running.Wait()
	close(done)
	following.Wait()
	all := map[string]int64{}
	for _, some := range want {
		maps.Copy(all, some)
	}
	require.Equal(t, all, seen)
	require.Len(t, revocations(t, stores[0], 0), each*revokers)
}
