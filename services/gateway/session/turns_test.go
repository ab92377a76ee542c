package session

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

func (s *stage) lists() (n int) {
	s.store.Set(func() { n = s.store.Lists })
	return n
}

// The number of memberships looked up at once is limited. A session that ends while it waits for a turn stops waiting.
func TestLookUpsWaitForTheirTurn(t *testing.T) {
	s := newStage(t)
	ann, bob := s.connect("ann", frame.Proto), s.connect("bob", frame.Proto)
	s.store.Put(branch(nil, 2, "x"))
	for range maxTurns {
		s.turns <- struct{}{}
	}
	before := s.lists()
	s.Joined("ann", groupID, 1)
	s.Joined("bob", groupID, 1)
	s.Relist()
	bob.far.Lose()
	bob.requireForgotten()
	ann.quiet()
	require.Equal(t, before, s.lists())
	<-s.turns
	require.NotNil(t, ann.next().GetAttached())
	require.Equal(t, []uint64{1, 2}, ann.seqs(2))
	for range maxTurns - 1 {
		<-s.turns
	}
	require.Eventually(t, func() bool { return len(s.turns) == 0 }, patience, time.Millisecond)
}

// deaf opens a session whose client asks to resume, and then reads nothing.
func (s *stage) deaf(userID string, positions ...*clientv1.Position) *Session {
	s.t.Helper()
	number := s.NextNumber()
	l, far := memory.New(s.shared, number, wire.WebSocket(frame.Proto))
	session := s.Begin(l, number)
	s.readers.Go(func() { l.Serve(session) })
	s.t.Cleanup(far.Lose)
	connect := connectFrame(&clientv1.Connect{Token: s.token(userID), DeviceId: "d", Resume: positions})
	require.NoError(s.t, far.Send(frame.AppendClient(nil, frame.Proto, connect)))
	return session
}

// However many clients ask for a former conversation and read nothing, the others can join theirs.
func TestSlowClientsDoNotKeepOthersFromJoining(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.MaxConnectionsPerUser = maxTurns })
	log := branch(nil, 100, strings.Repeat("x", 6000))
	s.store.Set(func() { s.store.Log, s.store.Left = log, 100 })
	for range maxTurns {
		s.deaf("bob", position(log[0]))
	}
	require.Eventually(t, func() bool {
		waiting := 0
		for _, d := range s.List("bob") {
			if int(d.GetQueuedBytes()) > s.shared.MaxBytes/2 {
				waiting++
			}
		}
		return waiting == maxTurns
	}, patience, time.Millisecond)
	cem := s.connect("cem", frame.Proto)
	s.store.Set(func() { s.store.Log, s.store.Left = branch(nil, 2, "x"), 0 })
	s.Joined("cem", groupID, 1)
	require.NotNil(t, cem.next().GetAttached())
	require.Equal(t, []uint64{1, 2}, cem.seqs(2))
}

// A former conversation waits while the store is unavailable, and the waiting client can leave.
func TestAFormerConversationWaitsForTheStore(t *testing.T) {
	for name, stays := range map[string]bool{"the client stays": true, "the client goes": false} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t)
			log := branch(nil, 5, "x")
			s.store.Set(func() { s.store.Log, s.store.Left = log, 4 })
			s.history.once(&s.history.afterFind, func() { s.store.Set(func() { s.store.Down = true }) })
			c := s.connect("bob", frame.Proto, position(log[1]))
			require.Eventually(t, func() bool {
				return strings.Contains(s.logs.String(), "a client could not be told of a membership yet")
			}, patience, time.Millisecond)
			if !stays {
				c.far.Lose()
				c.requireForgotten()
				s.Wait()
				return
			}
			s.store.Set(func() { s.store.Down = false })
			require.Equal(t, []uint64{3, 4}, c.seqs(2))
			require.Equal(t, uint64(4), c.next().GetDetached().GetLast())
		})
	}
}

// A subscription that is behind waits while the store is unavailable.
func TestASubscriptionThatIsBehindWaitsForTheStore(t *testing.T) {
	s := newStage(t)
	log := branch(nil, 5, "x")
	s.store.Put(log)
	s.history.once(&s.history.ahead, func() { s.store.Set(func() { s.store.Down = true }) })
	c := s.connect("bob", frame.Proto, position(log[1]))
	require.Eventually(t, func() bool { return strings.Contains(s.logs.String(), "could not be brought up to date yet") }, patience, time.Millisecond)
	s.store.Set(func() { s.store.Down = false })
	require.Equal(t, []uint64{3, 4, 5}, c.seqs(3))
}

// Acknowledgements are forwarded periodically, only the newest values, and one last time at the end.
func TestAcksArePassedOnEverySoOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		passed := make(chan *brokerv1.Acks, 10)
		acks := NewAcks(4, func(partition ids.Partition, data []byte) error {
			var message brokerv1.Acks
			require.NoError(t, message.UnmarshalVT(data))
			require.Equal(t, conversation.Partition(ids.Conversation(message.GetAcks()[0].GetConversationId()), 4), partition)
			passed <- &message
			return nil
		}, slog.New(slog.DiscardHandler))
		done := make(chan struct{})
		ctx, cancel := contextOf(t)
		go func() {
			defer close(done)
			acks.Run(ctx)
		}()
		acks.Add(groupID, "ann", 5, 2)
		acks.Add(groupID, "ann", 4, 3) // both values only rise
		synctest.Wait()
		require.Empty(t, passed)
		time.Sleep(ackInterval)
		synctest.Wait()
		ack := (<-passed).GetAcks()
		require.Len(t, ack, 1)
		require.Equal(t, []uint64{5, 3}, []uint64{ack[0].GetDeliveredSeq(), ack[0].GetReadSeq()})
		time.Sleep(10 * ackInterval)
		synctest.Wait()
		require.Empty(t, passed, "once")
		acks.Add(groupID, "bob", 9, 0)
		cancel()
		<-done
		require.Equal(t, uint64(9), (<-passed).GetAcks()[0].GetDeliveredSeq())
	})
}

// The size of a message of acknowledgements is bounded; what could not be sent is kept for the next time.
func TestAcksArePassedOnInBatches(t *testing.T) {
	var sizes []int
	var refuse error
	acks := NewAcks(1, func(_ ids.Partition, data []byte) error {
		if refuse != nil {
			return refuse
		}
		var message brokerv1.Acks
		require.NoError(t, message.UnmarshalVT(data))
		sizes = append(sizes, len(message.GetAcks()))
		return nil
	}, slog.New(slog.DiscardHandler))
	for i := range 2*acksPerMessage + 1 {
		acks.Add(groupID, ids.User(strings.Repeat("u", 1+i%7)+time.Duration(i).String()), 1, 1)
	}
	refuse = errors.New("no owner")
	acks.pass()
	require.Len(t, acks.pending, 2*acksPerMessage+1)
	refuse = nil
	acks.pass()
	require.Equal(t, []int{acksPerMessage, acksPerMessage, 1}, sizes)
	require.Empty(t, acks.pending)
	acks.pass()
	require.Len(t, sizes, 3, "without acknowledgements no message is sent")
}

// Recent revocations are read periodically: each time from the newest known one on, page by page.
func TestRevocationsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t)
		c := s.open(frame.Proto)
		s.verifier().set("t", auth.Claims{User: "bob", IssuedAt: time.Unix(0, 1e6)})
		c.connectWith(&clientv1.Connect{Token: "t", DeviceId: "d"})
		var mu sync.Mutex
		var since []int64
		begun := time.Now().UnixMilli()
		s.history.revocations = func(from int64) (*historyv1.GetRevocationsResponse, error) {
			mu.Lock()
			defer mu.Unlock()
			since = append(since, from)
			switch len(since) {
			case 1:
				return &historyv1.GetRevocationsResponse{Revocations: []*historyv1.Revocation{{UserId: "cem", BeforeMs: begun + 5}}, More: true}, nil
			case 2:
				return &historyv1.GetRevocationsResponse{Revocations: []*historyv1.Revocation{{UserId: "bob", BeforeMs: begun + 7}}}, nil
			case 3:
				return nil, gatewaytest.ErrDown
			case 4:
				return nil, status.Error(codes.Unimplemented, "too old")
			default:
				return &historyv1.GetRevocationsResponse{More: true}, nil // a page without revocations is the last one
			}
		}
		ctx, cancel := contextOf(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.WatchRevocations(ctx)
		}()
		interval := s.deps.Config.RevocationInterval
		time.Sleep(interval * 5 / 4)
		synctest.Wait()
		c.requireClosed(errcode.CloseUnauthenticated)
		time.Sleep(5 * interval)
		synctest.Wait()
		mu.Lock()
		require.Equal(t, []int64{begun - clockSlack.Milliseconds(), begun + 5, begun + 7, begun + 7, begun + 7}, since[:5])
		asked := len(since)
		mu.Unlock()
		require.Contains(t, s.logs.String(), "revoked tokens could not be read")
		s.Relist() // a notice may have been lost
		s.Relist()
		synctest.Wait()
		mu.Lock()
		require.Greater(t, len(since), asked, "at once")
		mu.Unlock()
		cancel()
		<-done
	})
}

// Pongs and acknowledgements above the frame rate count as abuse, but are handled: dropping them would do more harm.
func TestPongsAndAcksAboveTheRateAreTaken(t *testing.T) {
	s := newStage(t, func(cfg *Config) { cfg.FrameRate = 0.1 }) // one frame, which is connect
	s.store.Put(branch(nil, 3, "x"))
	c := s.connect("ann", frame.Proto)
	c.beatPending.Store(1)
	c.say(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Pong{Pong: &clientv1.Pong{}}})
	require.Eventually(t, func() bool { return c.beatPending.Load() == 0 }, patience, time.Millisecond)
	c.say(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Ack{Ack: &clientv1.Ack{
		Positions: []*clientv1.AckPosition{{ConversationId: groupID, Delivered: 3, Read: 2}},
	}}})
	require.Eventually(t, func() bool { return c.subscription().Beat().Read == 2 }, patience, time.Millisecond)
	refused := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_ListConversations{ListConversations: &clientv1.ListConversations{}}})
	require.Equal(t, conversationv1.ErrorCode_ERROR_CODE_RATE_LIMITED, refused.GetError().GetCode())
}
