package session

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
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits the wait for something that happens in a moment. A test that exceeds it fails.
const patience = 30 * time.Second

const groupID = gatewaytest.GroupID

var (
	branch   = gatewaytest.Branch
	position = gatewaytest.Position
)

// stage is the sessions of a gateway without NATS and sockets, on a store that is a slice of events.
type stage struct {
	*Sessions

	t       *testing.T
	store   *gatewaytest.Store
	history *hooked // the store, as sessions and rooms call it
	bus     *fakeBus
	logs    *telemetrytest.Log
	metrics *metrics.Metrics
	shared  *outbox.Shared
	level   conversation.Level
	passed  chan *brokerv1.Acks // acknowledgements sent to the owners of partitions
	refuse  error               // interval of forwarding acknowledgements
	submits chan broker.Submission
	wrap    func(link.Link) link.Link // changes the links of later sessions; nil for none
	readers sync.WaitGroup
}

// fakeBus delivers only the messages of the test.
type fakeBus struct {
	mu         sync.Mutex
	subscribed map[ids.Conversation]chan *nats.Msg
	before     func() // the subscription that fails; empty for none
}

type fakeSubscription struct{}

func (fakeSubscription) Unsubscribe() error { return nil }

func (b *fakeBus) Subscribe(id ids.Conversation, to chan *nats.Msg) (room.Unsubscriber, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.before != nil {
		b.before()
	}
	b.subscribed[id] = to
	return fakeSubscription{}, nil
}

func (b *fakeBus) Flush(context.Context) error { return nil }

// live publishes events of the group.
func (s *stage) live(events ...*conversationv1.Event) {
	s.t.Helper()
	data, err := (&brokerv1.Live{Events: events}).MarshalVT()
	require.NoError(s.t, err)
	s.bus.mu.Lock()
	to := s.bus.subscribed[groupID]
	s.bus.mu.Unlock()
	require.NotNil(s.t, to, "nobody is subscribed to the group")
	to <- &nats.Msg{Subject: broker.LiveSubject(groupID), Data: data}
}

// verifier accepts every token as valid: it names its user, and when it was issued and expires.
type verifier struct {
	mu     sync.Mutex
	claims map[string]auth.Claims
	err    error
}

func (v *verifier) Verify(_ context.Context, token string) (auth.Claims, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.err != nil {
		return auth.Claims{}, v.err
	}
	claims, known := v.claims[token]
	if !known {
		return auth.Claims{}, auth.ErrSignature
	}
	return claims, nil
}

func (v *verifier) set(token string, claims auth.Claims) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.claims[token] = claims
}

func newStage(t *testing.T, change ...func(*Config)) *stage {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &stage{
		t: t, store: &gatewaytest.Store{Level: 1, Partitions: 4}, bus: &fakeBus{subscribed: map[ids.Conversation]chan *nats.Msg{}},
		logs: &telemetrytest.Log{}, metrics: metrics.New(prometheus.NewRegistry()), level: 1, passed: make(chan *brokerv1.Acks, 100),
		submits: make(chan broker.Submission, 100),
	}
	s.history = &hooked{Store: s.store}
	log, recorder, tracer := slog.New(slog.NewTextHandler(s.logs, nil)), flight.NewRecorder(1024), flight.NewTracer(nil, 0)
	s.shared = &outbox.Shared{
		MaxBytes: 256 << 10, WriteTimeout: patience, Buffers: &outbox.Buffers{}, Metrics: s.metrics, Recorder: recorder,
	}
	cfg := Config{
		MaxFrameBytes: 64 << 10, MaxConnectionsPerUser: 3, FrameRate: 1000, CommandRatePerUser: 10, ConnectTimeout: 10 * time.Second,
		Heartbeat: 25 * time.Second, TokenWarning: time.Minute, HistoryTimeout: patience, RevocationInterval: 10 * time.Second,
	}
	for _, c := range change {
		c(&cfg)
	}
	hub := room.NewHub(ctx, room.Config{
		Log: s.history, Bus: s.bus, Logger: log, Metrics: s.metrics, Recorder: recorder, Tracer: tracer,
		Joined: func(userID ids.User, conversationID ids.Conversation, seq ids.Seq, committed time.Time) {
			s.JoinedAt(userID, conversationID, seq, committed)
		},
		SendQueueBytes: 256 << 10, RecentBytes: 1 << 20, AckTimeout: 10 * time.Second, AckTries: 5, HistoryTimeout: patience,
	})
	acks := NewAcks(4, func(_ ids.Partition, data []byte) error {
		if s.refuse != nil {
			return s.refuse
		}
		var passed brokerv1.Acks
		if err := passed.UnmarshalVT(data); err != nil {
			return err
		}
		s.passed <- &passed
		return nil
	}, log)
	level := func() conversation.Level { return s.level }
	s.Sessions = New(ctx, Deps{
		Config: cfg, Log: log, Metrics: s.metrics, Recorder: recorder, Tracer: tracer, Closed: flight.NewClosedLog(1000),
		Verifier: &verifier{claims: map[string]auth.Claims{}}, History: s.history, Rooms: hub, Acks: acks, Level: level,
		Requests: requests.New(requests.Config{
			History: s.store, Level: level, Partitions: 4, Metrics: s.metrics, Tracer: tracer,
			Submit: func(submission broker.Submission) error {
				select {
				case s.submits <- submission:
					return nil
				default:
					return errors.New("busy")
				}
			},
		}),
	})
	var shards sync.WaitGroup
	shards.Go(func() { hub.Run(ctx) })
	shards.Go(func() { s.WatchMemberships(ctx) })
	t.Cleanup(func() {
		cancel()
		shards.Wait()
		s.readers.Wait()
		s.Wait()
		hub.Wait()
		s.shared.Writers.Wait()
	})
	return s
}

// taken returns the next command that was given to the broker.
func (s *stage) taken() broker.Submission {
	s.t.Helper()
	select {
	case submission := <-s.submits:
		return submission
	case <-time.After(patience):
		require.FailNow(s.t, "no command is published")
		return broker.Submission{}
	}
}

// token returns a token of a user that does not expire.
func (s *stage) token(userID string) string {
	s.verifier().set("token of "+userID, auth.Claims{User: ids.User(userID), IssuedAt: time.Unix(1000, 0)})
	return "token of " + userID
}

func (s *stage) verifier() *verifier {
	v, _ := s.deps.Verifier.(*verifier)
	return v
}

// client is the client's end of a session; the test reads its frames.
type client struct {
	*Session

	t      *testing.T
	codec  frame.Codec // encoding of events
	far    *memory.Client
	frames chan *clientv1.ServerFrame
	closes chan errcode.CloseCode
	nextID uint64
}

// open begins a session whose client has sent nothing yet.
func (s *stage) open(codec frame.Codec) *client {
	s.t.Helper()
	number := s.NextNumber()
	l, far := memory.New(s.shared, number, wire.WebSocket(codec))
	served := link.Link(l)
	if s.wrap != nil {
		served = s.wrap(l)
	}
	c := &client{
		Session: s.Begin(served, number), t: s.t, codec: codec, far: far,
		frames: make(chan *clientv1.ServerFrame, 1000), closes: make(chan errcode.CloseCode, 1),
	}
	require.NotNil(s.t, c.Session)
	s.readers.Go(func() { l.Serve(c.Session) })
	s.readers.Go(c.read)
	s.t.Cleanup(far.Lose)
	return c
}

func (c *client) read() {
	for {
		message, code, err := c.far.Next()
		if err != nil {
			return
		}
		if code != 0 {
			c.closes <- code
			return
		}
		_ = frame.DecodeServer(c.codec, message, func(f *clientv1.ServerFrame) error {
			c.frames <- f
			return nil
		})
	}
}

// say sends one frame.
func (c *client) say(f *clientv1.ClientFrame) {
	c.t.Helper()
	codec := c.codec
	if codec == frame.JSONWithBytes {
		codec = frame.JSON
	}
	require.NoError(c.t, c.far.Send(frame.AppendClient(nil, codec, f)))
}

// ask sends a request and returns its answer. A push that comes before it fails the test.
func (c *client) ask(f *clientv1.ClientFrame) *clientv1.ServerFrame {
	c.t.Helper()
	c.nextID++
	f.Id = c.nextID
	c.say(f)
	answer := c.next()
	require.Equal(c.t, f.GetId(), answer.GetId(), "%v", answer)
	return answer
}

// connect opens a session and connects it. It returns when the session is open, which is shortly after the client receives
// connected.
func (s *stage) connect(userID string, codec frame.Codec, positions ...*clientv1.Position) *client {
	s.t.Helper()
	opened := codec
	if codec == frame.JSONWithBytes {
		opened = frame.JSON
	}
	c := s.open(opened)
	c.codec = codec
	c.connectWith(&clientv1.Connect{
		Token: s.token(userID), DeviceId: "d-" + userID, Resume: positions, BodyBytes: codec == frame.JSONWithBytes,
	})
	return c
}

// connectWith connects a session whose client has sent nothing yet.
func (c *client) connectWith(connect *clientv1.Connect) *clientv1.Connected {
	c.t.Helper()
	answer := c.ask(connectFrame(connect))
	require.NotNil(c.t, answer.GetConnected(), "%v", answer)
	require.Eventually(c.t, c.Opened, patience, 50*time.Microsecond)
	return answer.GetConnected()
}

func connectFrame(connect *clientv1.Connect) *clientv1.ClientFrame {
	return &clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: connect}}
}

// next returns the next frame that the client receives.
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

func (c *client) requireClosed(code errcode.CloseCode) {
	c.t.Helper()
	select {
	case got := <-c.closes:
		require.Equal(c.t, code, got)
	case <-time.After(patience):
		require.FailNow(c.t, "the session is not closed")
	}
	c.requireForgotten()
}

// requireForgotten waits until the session has been removed everywhere.
func (c *client) requireForgotten() {
	c.t.Helper()
	require.Eventually(c.t, func() bool { _, known := c.all.Get(c.id); return !known }, patience, 50*time.Microsecond)
}

// seqs returns the seqs of the next n frames, which must be events.
func (c *client) seqs(n int) (seqs []uint64) {
	c.t.Helper()
	for range n {
		f := c.next()
		require.NotNil(c.t, f.GetEvent(), "%v", f)
		seqs = append(seqs, f.GetEvent().GetSeq())
	}
	return seqs
}

// quiet makes a request, and requires that no frame comes before its answer.
func (c *client) quiet() {
	c.t.Helper()
	answer := c.ask(&clientv1.ClientFrame{Request: &clientv1.ClientFrame_Connect{Connect: &clientv1.Connect{}}})
	require.Equal(c.t, codeProtocol, answer.GetError().GetCode(), "%v", answer)
}

func (c *client) requireForked(head, seq uint64) {
	c.t.Helper()
	f := c.next().GetForked()
	require.Equal(c.t, groupID, f.GetConversationId())
	require.Equal(c.t, head, f.GetHead())
	require.Equal(c.t, seq, f.GetSeq())
}

func (c *client) subscription() *room.Subscription {
	return c.Session.subscription(groupID)
}
