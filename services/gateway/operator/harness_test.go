package operator

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/session"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits the wait for something that happens in a moment. A test that exceeds it fails.
const patience = 30 * time.Second

const groupID = gatewaytest.GroupID

// stage is a gateway without NATS and sockets, for operators' queries.
type stage struct {
	*Server

	t        *testing.T
	store    *gatewaytest.Store
	bus      *fakeBus
	shared   *outbox.Shared
	draining bool
	pending  int
	level    conversation.Level
	readers  sync.WaitGroup
}

type fakeBus struct {
	mu         sync.Mutex
	subscribed map[ids.Conversation]chan *nats.Msg
}

type fakeSubscription struct{}

func (fakeSubscription) Unsubscribe() error { return nil }

func (b *fakeBus) Subscribe(id ids.Conversation, to chan *nats.Msg) (room.Unsubscriber, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subscribed[id] = to
	return fakeSubscription{}, nil
}

func (b *fakeBus) Flush(context.Context) error { return nil }

// live publishes events of the group.
func (s *stage) live(events ...*conversationv1.Event) {
	s.t.Helper()
	data, err := (&brokerv1.Live{Events: events, Worker: "worker-1", CommittedNs: 77}).MarshalVT()
	require.NoError(s.t, err)
	s.bus.mu.Lock()
	to := s.bus.subscribed[groupID]
	s.bus.mu.Unlock()
	require.NotNil(s.t, to, "nobody is subscribed to the group")
	to <- &nats.Msg{Subject: broker.LiveSubject(groupID), Data: data}
}

// believer accepts a token as the name of its user.
type believer struct{}

func (believer) Verify(_ context.Context, token string) (auth.Claims, error) {
	return auth.Claims{User: ids.User(token), IssuedAt: time.Unix(1000, 0)}, nil
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &stage{t: t, store: &gatewaytest.Store{Level: 1, Partitions: 4}, bus: &fakeBus{subscribed: map[ids.Conversation]chan *nats.Msg{}}, level: 1}
	log, recorder, tracer := slog.New(slog.DiscardHandler), flight.NewRecorder(4096), flight.NewTracer(nil, 0)
	counted, closed := metrics.New(prometheus.NewRegistry()), flight.NewClosedLog(1<<20)
	s.shared = &outbox.Shared{MaxBytes: 256 << 10, WriteTimeout: patience, Buffers: &outbox.Buffers{}, Metrics: counted, Recorder: recorder}
	hub := room.NewHub(ctx, room.Config{
		Log: s.store, Bus: s.bus, Logger: log, Metrics: counted, Recorder: recorder, Tracer: tracer, Joined: func(ids.User, ids.Conversation, ids.Seq, time.Time) {},
		SendQueueBytes: 256 << 10, RecentBytes: 1 << 20, AckTimeout: patience, AckTries: 5, HistoryTimeout: patience,
	})
	level := func() conversation.Level { return s.level }
	sessions := session.New(ctx, session.Deps{
		Config: session.Config{
			MaxFrameBytes: 64 << 10, MaxConnectionsPerUser: 2 * maxTrails, FrameRate: 1000, CommandRatePerUser: 10, ConnectTimeout: patience,
			Heartbeat: 25 * time.Second, TokenWarning: time.Minute, HistoryTimeout: patience, RevocationInterval: patience,
		},
		Log: log, Metrics: counted, Recorder: recorder, Tracer: tracer, Closed: closed, Verifier: believer{}, History: s.store, Rooms: hub,
		Acks: session.NewAcks(4, func(ids.Partition, []byte) error { return nil }, log), Level: level,
		Requests: requests.New(requests.Config{
			History: s.store, Level: level, Partitions: 4, Metrics: counted, Tracer: tracer,
			Submit: func(broker.Submission) error { return errors.New("no broker") },
		}),
	})
	s.Server = New(Deps{
		Gateway: "gw-1", Sessions: sessions, Rooms: hub, Recorder: recorder, Closed: closed, Metrics: counted, MaxConnections: 1000,
		Draining: func() bool { return s.draining }, PendingCommands: func() int { return s.pending }, Level: level,
	})
	var shards sync.WaitGroup
	shards.Go(func() { hub.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		shards.Wait()
		s.readers.Wait()
		sessions.Wait()
		hub.Wait()
		s.shared.Writers.Wait()
	})
	return s
}

// client is the client's end of a session.
type client struct {
	*session.Session

	t      *testing.T
	id     string
	far    *memory.Client
	frames chan *clientv1.ServerFrame
	closes chan errcode.CloseCode
}

// open begins a session whose client has sent nothing yet.
func (s *stage) open() *client {
	s.t.Helper()
	number := s.deps.Sessions.NextNumber()
	l, far := memory.New(s.shared, number, wire.WebSocket(frame.Proto))
	c := &client{
		Session: s.deps.Sessions.Begin(l, number), t: s.t, far: far, frames: make(chan *clientv1.ServerFrame, 100), closes: make(chan errcode.CloseCode, 1),
	}
	s.readers.Go(func() { l.Serve(c.Session) })
	s.readers.Go(func() {
		for {
			message, code, err := far.Next()
			switch {
			case err != nil:
				return
			case code != 0:
				c.closes <- code
				return
			}
			_ = frame.DecodeServer(frame.Proto, message, func(f *clientv1.ServerFrame) error {
				c.frames <- f
				return nil
			})
		}
	})
	s.t.Cleanup(far.Lose)
	return c
}

// connect opens a session of a user's device, which may have positions.
func (s *stage) connect(userID string, resume ...*clientv1.Position) *client {
	s.t.Helper()
	c := s.open()
	c.say(&clientv1.ClientFrame{Id: 1, Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{
		Token: userID, DeviceId: "d-" + userID, Client: "test/1", Resume: resume,
	}}})
	connected := c.next().GetConnected()
	require.NotNil(s.t, connected)
	require.Eventually(s.t, c.Opened, patience, 50*time.Microsecond)
	c.id = connected.GetConnectionId()
	return c
}

func (c *client) say(f *clientv1.ClientFrame) {
	c.t.Helper()
	require.NoError(c.t, c.far.Send(frame.AppendClient(nil, frame.Proto, f)))
}

func (c *client) next() *clientv1.ServerFrame {
	c.t.Helper()
	select {
	case f := <-c.frames:
		return f
	case <-time.After(patience):
		require.FailNow(c.t, "the client gets nothing")
		return nil
	}
}

// leave ends the session and waits until it is removed.
func (s *stage) leave(c *client, code errcode.CloseCode) {
	s.t.Helper()
	if code == 0 {
		c.far.Lose()
	} else {
		c.far.Close(code)
	}
	s.gone(c)
}

func (s *stage) gone(c *client) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { _, known := s.deps.Sessions.Get(ids.Connection(c.id)); return !known }, patience, 50*time.Microsecond)
}

// many connects this many sessions of a user.
func (s *stage) many(userID string, n int) (ids []string) {
	s.t.Helper()
	for range n {
		ids = append(ids, s.connect(userID).id)
	}
	return ids
}
