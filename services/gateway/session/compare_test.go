package session

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
)

// After an outage of the bus memberships are compared with the store: those that last and those that have ended are told although
// no notice came.
func TestLostNoticesAreMadeUpFor(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 3, "x")
	s.putLog(log)
	dan := s.connect("dan", frame.Proto)
	s.Relist()
	dan.requireTold()
	log = short(log)
	s.putLog(log)
	s.Relist()
	dan.requireTold("attached 4", "4", "5", "6", "detached 6")
	s.putLog(add(log, "dan"))
	s.Relist()
	dan.requireTold("attached 7", "7")
	s.Relist()
	dan.requireTold()
}

// A history service of an earlier version lists the conversations.
func TestMembershipsAreListedIfTheyCannotBeCompared(t *testing.T) {
	s := newStage(t)
	s.putLog(branch(nil, 3, "x"))
	s.history.compare = func(*historyv1.CompareMembershipsRequest) (*historyv1.CompareMembershipsResponse, error) {
		return nil, status.Error(codes.Unimplemented, "an earlier version")
	}
	dan := s.connect("dan", frame.Proto)
	s.putLog(add(branch(nil, 3, "x"), "dan"))
	s.Relist()
	dan.requireTold("attached 4", "4")
}

// A comparison that fails is tried again with the next one, and misses nothing.
func TestAComparisonThatFails(t *testing.T) {
	s := newStage(t)
	s.putLog(branch(nil, 3, "x"))
	dan := s.connect("dan", frame.Proto)
	s.store.Set(func() { s.store.Down = true })
	s.Relist()
	require.Eventually(t, func() bool {
		return strings.Contains(s.logs.String(), "could not compare memberships with the store")
	}, patience, time.Millisecond)
	s.putLog(short(branch(nil, 3, "x")))
	s.store.Set(func() { s.store.Down = false })
	s.Relist()
	dan.requireTold("attached 4", "4", "5", "6", "detached 6")
}

// comparer is a history service that has no memberships, and room for few users in an answer.
type comparer struct {
	History

	calls  int
	users  int
	since  time.Time
	change uint64
}

func (c *comparer) CompareMemberships(
	_ context.Context, r *historyv1.CompareMembershipsRequest, _ ...grpc.CallOption,
) (*historyv1.CompareMembershipsResponse, error) {
	c.calls++
	c.users += len(r.GetUsers())
	c.since = time.UnixMilli(r.GetSinceMs())
	answer := &historyv1.CompareMembershipsResponse{}
	for _, user := range r.GetUsers() {
		if user.GetDigest() == c.change {
			continue
		}
		answer.Users = append(answer.Users, &historyv1.ChangedMemberships{UserId: user.GetUserId(), Digest: c.change})
		if len(answer.GetUsers()) == 300 {
			answer.More = true
			break
		}
	}
	return answer, nil
}

func (c *comparer) ListConversations(context.Context, *historyv1.ListConversationsRequest, ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	return &historyv1.ListConversationsResponse{}, nil
}

// The users of a gateway are compared together: the number of calls does not grow with the number of connections. All are
// compared although an answer has room for few.
func TestUsersAreComparedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		store := &comparer{change: 7}
		s.deps.History = store
		begin := time.Now()
		for i := range 2000 {
			s.enroll(&Session{all: s.Sessions}, auth.Claims{User: ids.User(strconv.Itoa(i % 1000))})
		}
		time.Sleep(compareBeats * s.deps.Config.Heartbeat * 5 / 4)
		synctest.Wait()
		require.Equal(t, 4, store.calls, "500 users in a call, answers with 300")
		require.True(t, store.since.Before(begin), "the clocks may differ")
		*s.deps.History.(*comparer) = comparer{change: 7}
		require.NoError(t, s.compareAll(t.Context()))
		require.Equal(t, 2, store.calls, "nothing changed")
		require.Equal(t, 1000, store.users)
		require.Less(t, time.Since(store.since), compareSlack+2*compareBeats*s.deps.Config.Heartbeat)
	})
}
