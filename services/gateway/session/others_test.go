package session

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// These tests are about what one user can cause to others and to the history service.

// A client that resumes many conversations that its user never was in causes one call, and is told of each.
func TestUnknownConversationsCostOneCall(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	var positions []*clientv1.Position
	for i := range protocol.MaxResumePositions {
		positions = append(positions, &clientv1.Position{ConversationId: fmt.Sprintf("g%026d", i), Seq: 7})
	}
	c := s.connect("bob", frame.Proto, positions...)
	for i := range positions {
		detached := c.next().GetDetached()
		require.Equal(t, positions[i].GetConversationId(), detached.GetConversationId())
		require.Zero(t, detached.GetLast())
	}
	c.quiet()
	s.store.Set(func() {
		require.Equal(t, 1, s.store.Finds)
		require.Equal(t, 1, s.store.Lists)
		require.Zero(t, s.store.Reads)
	})
}

// A user's connects and requests share one allowance: reconnecting does not renew it.
func TestConnectsAreLimitedByUser(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.ReadRatePerUser = 0.1 }) // and a burst of one
	s.connect("ann", frame.Proto)
	again := s.open(frame.Proto)
	refused := again.ask(connectFrame(&clientv1.Connect{Token: s.token("ann"), DeviceId: "d"})).GetError()
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetCode())
	again.requireClosed(errcode.CloseOverloaded)
	s.connect("bob", frame.Proto)
}

// catalogue is a history service with many conversations of every user. A test may hold its answers back.
type catalogue struct {
	historyv1.HistoryServiceClient

	mu       sync.Mutex
	requests []*historyv1.ListConversationsRequest
	hold     chan struct{} // receives once for each call, if set
	wait     time.Duration // of each call
	pages    int
}

func (c *catalogue) ListConversations(ctx context.Context, r *historyv1.ListConversationsRequest, _ ...grpc.CallOption) (*historyv1.ListConversationsResponse, error) {
	c.mu.Lock()
	c.requests = append(c.requests, r)
	page := len(c.requests)
	c.mu.Unlock()
	if c.hold != nil {
		<-c.hold
	}
	select {
	case <-time.After(c.wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	answer := &historyv1.ListConversationsResponse{More: page < c.pages}
	for _, id := range r.GetConversationIds() {
		answer.Conversations = append(answer.Conversations, &historyv1.Summary{ConversationId: id, JoinedSeq: 1})
	}
	if len(r.GetConversationIds()) == 0 {
		answer.Conversations = append(answer.Conversations, &historyv1.Summary{ConversationId: fmt.Sprintf("g%026d", page)})
	}
	return answer, nil
}

// A long list of conversations is read page by page, each with a time limit of its own.
func TestEveryPageOfTheListHasItsOwnTimeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &catalogue{wait: 900 * time.Millisecond, pages: 5}
		a := New(t.Context(), Deps{Config: Config{HistoryTimeout: time.Second}, Metrics: metrics.New(prometheus.NewRegistry()), History: store})
		all, _, err := a.listAll(t.Context(), "ann")
		require.NoError(t, err)
		require.Len(t, all, 5)
	})
}

// While a lookup is under way, those of all sessions of the user wait for one call together.
func TestLookUpsOfAUserAreBundled(t *testing.T) {
	s := newStage(t)
	one, two := s.connect("ann", frame.Proto), s.connect("ann", frame.JSON)
	store := &catalogue{hold: make(chan struct{})}
	s.deps.History = store
	const conversations = 300
	var found sync.WaitGroup
	look := func(c *client, i int) {
		found.Go(func() {
			id := ids.Conversation(fmt.Sprintf("g%026d", i))
			found, err := c.present(id)
			if err != nil || found.summary.GetConversationId() != string(id) {
				t.Errorf("%s: %v, %v", id, found.summary, err)
			}
		})
	}
	look(one, 0)
	require.Eventually(t, func() bool { return store.asked() == 1 }, patience, time.Millisecond)
	for i := 1; i < conversations; i++ {
		look(one, i)
		look(two, i)
	}
	require.Eventually(t, func() bool {
		ls := &one.user.lookups
		ls.mu.Lock()
		defer ls.mu.Unlock()
		waiters := 0
		for _, l := range ls.wanted {
			waiters += l.waiters
		}
		return waiters == 2*(conversations-1)
	}, patience, time.Millisecond)
	require.Len(t, s.turns, 1, "a user takes one turn for lookups")
	store.hold <- struct{}{}
	store.hold <- struct{}{}
	found.Wait()
	require.Equal(t, 2, store.asked())
	require.Len(t, store.requests[1].GetConversationIds(), conversations-1)
}

func (c *catalogue) asked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

// One user's work does not take the turns of others.
func TestAUserHasAShareOfTheTurns(t *testing.T) {
	s := newStage(t)
	ann, bob := s.connect("ann", frame.Proto), s.connect("bob", frame.Proto)
	taken := make(chan bool, maxTurns)
	for range maxTurns {
		s.workers.Go(func() { taken <- s.takeTurn(ann.Session) })
	}
	for range maxTurnsPerUser {
		require.True(t, <-taken)
	}
	require.True(t, s.takeTurn(bob.Session), "others are not delayed")
	require.Len(t, s.turns, maxTurnsPerUser+1)
	s.returnTurn(bob.Session)
	for range maxTurnsPerUser {
		s.returnTurn(ann.Session)
	}
	for range maxTurns - maxTurnsPerUser {
		require.True(t, <-taken)
		s.returnTurn(ann.Session)
	}
	require.Empty(t, s.turns)
}

// The number of goroutines that catch a session up does not depend on how often its user is added.
func TestCatchersAreBounded(t *testing.T) {
	s := newStage(t)
	ann := s.connect("ann", frame.Proto)
	for range maxTurns {
		s.turns <- struct{}{} // nothing gets on
	}
	for i := range 20 * maxCatchers {
		s.Joined("ann", ids.Conversation(fmt.Sprintf("g%026d", i)), 1)
	}
	ann.mu.Lock()
	require.Equal(t, maxCatchers, ann.catchers)
	require.GreaterOrEqual(t, len(ann.waiting), 19*maxCatchers)
	ann.mu.Unlock()
	for range maxTurns {
		<-s.turns
	}
	require.Eventually(t, func() bool {
		ann.mu.Lock()
		defer ann.mu.Unlock()
		return ann.catchers == 0
	}, patience, time.Millisecond)
}

// What others call their groups does not make the answers to a client larger than its send queue takes.
func TestAnswersAreBoundedInBytes(t *testing.T) {
	s := newStage(t)
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	most := s.deps.Rooms.PageBytes(c.listener.Answers)
	summaries := make([]*historyv1.Summary, protocol.MaxConnectedConversations)
	for i := range summaries {
		summaries[i] = &historyv1.Summary{ConversationId: fmt.Sprintf("g%026d", i), Name: strings.Repeat("n", protocol.MaxNameBytes), Head: 1}
	}
	connected := c.connected(summaries)
	require.LessOrEqual(t, connected.SizeVT(), most+1024)
	require.True(t, connected.GetMore())
	require.Greater(t, len(connected.GetConversations()), 100)

	s.live(branch(s.store.Log, 4, "x")[3])
	require.Equal(t, []uint64{4}, c.seqs(1))
	heads, more := c.heads(-1)
	require.Empty(t, heads)
	require.True(t, more)
	heads, more = c.heads(most)
	require.False(t, more)
	require.Len(t, heads, 1, "what did not fit comes the next time")
}
