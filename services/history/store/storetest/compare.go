package storetest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// compare compares users whose digests are known, and returns the users whose memberships changed.
func compare(t *testing.T, s store.Store, sinceMs int64, known map[string]uint64) map[string]*historyv1.ChangedMemberships {
	t.Helper()
	request := &historyv1.CompareMembershipsRequest{SinceMs: sinceMs}
	for user, digest := range known {
		request.Users = append(request.Users, &historyv1.KnownMemberships{UserId: user, Digest: digest})
	}
	answer, err := s.CompareMemberships(t.Context(), request)
	require.NoError(t, err)
	require.False(t, answer.GetMore())
	changed, before := map[string]*historyv1.ChangedMemberships{}, ""
	for _, user := range answer.GetUsers() {
		require.Greater(t, user.GetUserId(), before)
		require.NotZero(t, user.GetDigest())
		before, changed[user.GetUserId()], known[user.GetUserId()] = user.GetUserId(), user, user.GetDigest()
	}
	return changed
}

func testComparison(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("only users whose memberships changed are returned", func(t *testing.T) {
		db, worker, id := group(t, subject)
		known := map[string]uint64{"alice": 0, "bob": 0, "carol": 0, "nobody": 0}
		require.Len(t, compare(t, db, 0, known), 4)
		require.Empty(t, compare(t, db, 0, known))
		worker.Commit(t, worker.Command(id, "alice", Message("changes no membership")))
		require.Empty(t, compare(t, db, 0, known))
		worker.Commit(t, worker.Command(id, "alice", Add("carol")))
		require.Contains(t, compare(t, db, 0, known), "carol")
		worker.Commit(t, worker.Command(id, "alice", Remove("bob")))
		changed := compare(t, db, 0, known)
		require.Len(t, changed, 1)
		require.Contains(t, changed, "bob")
	})

	t.Run("a membership that began and ended in between is returned", func(t *testing.T) {
		db, worker, id := group(t, subject)
		known := map[string]uint64{"carol": 0}
		compare(t, db, 0, known)
		events := worker.Commit(t, worker.Command(id, "alice", Add("carol")), worker.Command(id, "alice", Message("short")), worker.Command(id, "alice", Remove("carol")),
			worker.Command(id, "alice", Add("carol")))
		changed := compare(t, db, 0, known)["carol"]
		require.Len(t, changed.GetMemberships(), 2)
		require.True(t, proto.Equal(&historyv1.Membership{ConversationId: id, JoinedSeq: events[0].GetSeq(), LeftSeq: events[2].GetSeq()}, changed.GetMemberships()[0]))
		require.True(t, proto.Equal(&historyv1.Membership{ConversationId: id, JoinedSeq: events[3].GetSeq()}, changed.GetMemberships()[1]))
	})

	t.Run("memberships that began or ended since a time are returned", func(t *testing.T) {
		db, worker, id := group(t, subject)
		add := worker.Commit(t, worker.Command(id, "alice", Add("carol", "dave")))[0]
		removal := worker.Commit(t, worker.Command(id, "alice", Remove("carol")))[0]
		require.Greater(t, removal.GetTimeMs(), add.GetTimeMs(), "the clock moves on")
		changed := compare(t, db, removal.GetTimeMs(), map[string]uint64{"carol": 0, "dave": 0})
		require.Len(t, changed["carol"].GetMemberships(), 1, "it ended since")
		require.Empty(t, changed["dave"].GetMemberships(), "it began before, and lasts")
		changed = compare(t, db, add.GetTimeMs(), map[string]uint64{"dave": 0})
		require.Len(t, changed["dave"].GetMemberships(), 1)
		require.Empty(t, compare(t, db, removal.GetTimeMs()+1, map[string]uint64{"carol": 0})["carol"].GetMemberships())
	})

	t.Run("many memberships of one user are cut", func(t *testing.T) {
		db, worker, id := group(t, subject)
		for range 1001/10 + 1 {
			var commands []*brokerv1.Command
			for range 10 {
				commands = append(commands, worker.Command(id, "alice", Add("carol")), worker.Command(id, "alice", Remove("carol")))
			}
			worker.Commit(t, commands...)
		}
		changed := compare(t, db, 0, map[string]uint64{"carol": 0})["carol"]
		require.True(t, changed.GetMore())
		require.Len(t, changed.GetMemberships(), 1000)
	})
}
