package room

import (
	"context"
	"log/slog"
	"math"
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
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry/telemetrytest"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/gatewaytest"
	"github.com/runnelhq/runnel/services/gateway/link/memory"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
	"github.com/runnelhq/runnel/services/gateway/stretch"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience limits the wait for something that happens in a moment. A test that exceeds it fails.
const patience = 30 * time.Second

const groupID = gatewaytest.GroupID

var (
	branch   = gatewaytest.Branch
	next     = gatewaytest.Next
	position = gatewaytest.Position
)

// stage is a hub without NATS, on a store that is a slice of events.
type stage struct {
	t       *testing.T
	hub     *Hub
	store   *gatewaytest.Store
	bus     *fakeBus
	logs    *telemetrytest.Log
	metrics *metrics.Metrics
	shared  *outbox.Shared
	joined  chan string
	clients sync.WaitGroup
}

// fakeBus delivers only the messages of the test.
type fakeBus struct {
	mu           sync.Mutex
	closed       bool
	down         bool
	slow         func() // called by each Subscribe and Unsubscribe before it does anything; nil for none
	subscribed   map[ids.Conversation]chan *nats.Msg
	unsubscribed []ids.Conversation
}

type fakeSubscription struct {
	bus *fakeBus
	id  ids.Conversation
}

func (b *fakeBus) wait() {
	b.mu.Lock()
	slow := b.slow
	b.mu.Unlock()
	if slow != nil {
		slow()
	}
}

func (f fakeSubscription) Unsubscribe() error {
	f.bus.wait()
	f.bus.mu.Lock()
	defer f.bus.mu.Unlock()
	delete(f.bus.subscribed, f.id)
	f.bus.unsubscribed = append(f.bus.unsubscribed, f.id)
	return nil
}

func (b *fakeBus) Subscribe(id ids.Conversation, to chan *nats.Msg) (Unsubscriber, error) {
	b.wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, nats.ErrConnectionClosed
	}
	b.subscribed[id] = to
	return fakeSubscription{b, id}, nil
}

func (b *fakeBus) Flush(context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nats.ErrTimeout
	}
	return nil
}

func newStage(t *testing.T) *stage {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	s := &stage{
		t: t, store: &gatewaytest.Store{Level: 1, Partitions: 4}, bus: &fakeBus{subscribed: map[ids.Conversation]chan *nats.Msg{}},
		logs: &telemetrytest.Log{}, metrics: metrics.New(prometheus.NewRegistry()), joined: make(chan string, 100),
	}
	recorder := flight.NewRecorder(1024)
	s.shared = &outbox.Shared{
		MaxBytes: 256 << 10, WriteTimeout: patience, Buffers: &outbox.Buffers{}, Metrics: s.metrics, Recorder: recorder,
	}
	s.hub = NewHub(ctx, Config{
		Log: s.store, Bus: s.bus, Logger: slog.New(slog.NewTextHandler(s.logs, nil)), Metrics: s.metrics, Recorder: recorder,
		Tracer: flight.NewTracer(nil, 0), Joined: func(userID ids.User, _ ids.Conversation, _ ids.Seq, _ time.Time) { s.joined <- string(userID) },
		SendQueueBytes: 256 << 10, RecentBytes: 1 << 20, AckTimeout: 10 * time.Second, AckTries: 5, HistoryTimeout: patience,
	})
	var shards sync.WaitGroup
	shards.Go(func() { s.hub.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		shards.Wait()
		s.hub.Wait()
		s.clients.Wait()
		s.shared.Writers.Wait()
	})
	return s
}

// room makes a room at the store's head.
func (s *stage) room() *Room {
	r := &Room{hub: s.hub, id: groupID, key: s.hub.cfg.Recorder.KeyOf(groupID), sub: fakeSubscription{s.bus, groupID}}
	s.hub.mu.Lock()
	s.hub.rooms[groupID] = r
	s.hub.mu.Unlock()
	require.NoError(s.t, s.hub.readHeads(s.t.Context(), []*Room{r}, (*Room).open))
	return r
}

// live passes events to a room, as the bus does.
func (s *stage) live(r *Room, events ...*conversationv1.Event) {
	var dirty []Sender
	r.takeMessage(&brokerv1.Live{Events: events}, newEntries(events), &dirty)
	flushAll(dirty)
}

// sweep does the periodic work, once the fillers are done: subscriptions that are behind are not sent events again.
func (s *stage) sweep(now time.Time) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		for _, r := range s.hub.all() {
			for _, one := range r.Show(math.MaxInt).Subscriptions {
				if one.Behind {
					return false
				}
			}
		}
		return true
	}, patience, 50*time.Microsecond)
	s.hub.Sweep(now)
}

// client is a listener whose frames the test reads. It does only what a session does.
type client struct {
	Listener

	stage  *stage
	link   *memory.Link
	far    *memory.Client
	frames chan *clientv1.ServerFrame
	closes chan errcode.CloseCode

	mu            sync.Mutex
	subscriptions map[ids.Conversation]*Subscription
	behind        []*Subscription
	filling       bool
}

func (s *stage) client(userID string, codec frame.Codec) *client {
	answers := wire.WebSocket(codec)
	events := answers
	if codec == frame.JSONWithBytes {
		events = answers.WithBodyBytes()
	}
	c := &client{stage: s, frames: make(chan *clientv1.ServerFrame, 1000), closes: make(chan errcode.CloseCode, 1), subscriptions: map[ids.Conversation]*Subscription{}}
	number := uint32(len(userID))
	c.link, c.far = memory.New(s.shared, number, answers)
	c.Listener = Listener{
		User: ids.User(userID), ConnectionID: ids.Connection("c-" + userID), Number: number, Events: events, Answers: answers, Receipts: true, Sender: c.link, Subscriber: c,
	}
	s.clients.Go(c.read)
	s.t.Cleanup(func() {
		c.link.End()
		c.far.Lose()
	})
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
		_ = frame.DecodeServer(c.Events.Codec(), message, func(f *clientv1.ServerFrame) error {
			c.frames <- f
			return nil
		})
	}
}

// Behind implements Subscriber.
func (c *client) Behind(s *Subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = append(c.behind, s)
	if !c.filling {
		c.filling = true
		c.stage.clients.Go(c.fill)
	}
}

func (c *client) fill() {
	for {
		c.mu.Lock()
		if len(c.behind) == 0 {
			c.filling = false
			c.mu.Unlock()
			return
		}
		s := c.behind[0]
		c.behind = c.behind[1:]
		c.mu.Unlock()
		for wait := time.Duration(0); c.link.WaitForRoom(); {
			more, err := s.FillOnce()
			c.link.Flush()
			if err != nil {
				c.stage.hub.ReadFailed(err, "test", "conversation", s.ConversationID())
				wait = backoff.Wait(c.link.Done(), wait)
				continue
			}
			if !more {
				break
			}
		}
	}
}

// Detached implements Subscriber.
func (c *client) Detached(s *Subscription, conversationID ids.Conversation, last ids.Seq) {
	c.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Detached{Detached: &clientv1.Detached{ConversationId: string(conversationID), Last: uint64(last)}}})
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subscriptions[conversationID] == s {
		delete(c.subscriptions, conversationID)
	}
}

// Forked implements Subscriber.
func (c *client) Forked(s *Subscription, conversationID ids.Conversation, head, seq ids.Seq) {
	c.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Forked{Forked: &clientv1.Forked{ConversationId: string(conversationID), Head: uint64(head), Seq: uint64(seq)}}})
	c.mu.Lock()
	defer c.mu.Unlock()
	if s != nil && c.subscriptions[conversationID] == s {
		delete(c.subscriptions, conversationID)
	}
}

func (c *client) send(f *clientv1.ServerFrame) {
	c.link.Queue(c.Answers.Frame(f))
	c.link.Flush()
}

// resume subscribes as a session does when it connects, to the conversations that the store lists.
func (c *client) resume(positions ...*clientv1.Position) {
	c.stage.t.Helper()
	list, err := c.stage.store.ListConversations(c.stage.t.Context(), &historyv1.ListConversationsRequest{})
	require.NoError(c.stage.t, err)
	c.subscribe(list.GetConversations(), positions...)
}

func (c *client) subscribe(summaries []*historyv1.Summary, positions ...*clientv1.Position) {
	c.stage.t.Helper()
	var entered []*historyv1.Summary
	named := map[string]*clientv1.Position{}
	for _, p := range positions {
		named[p.GetConversationId()] = p
	}
	for _, summary := range summaries {
		id := ids.Conversation(summary.GetConversationId())
		p, base := named[string(id)], ids.Seq(summary.GetHead())
		delete(named, string(id))
		if p.GetSeq() > summary.GetHead() {
			c.Forked(nil, id, ids.Seq(summary.GetHead()), ids.Seq(p.GetSeq()))
			continue
		}
		if p != nil {
			base = ids.Seq(p.GetSeq())
		}
		c.subscriptions[id] = c.Subscribe(summary, base, p)
		entered = append(entered, summary)
	}
	c.stage.hub.Enter(c.subscriptions, entered)
	for _, p := range named {
		c.stage.clients.Go(func() { c.fillFormer(p) })
	}
}

// fillFormer does what a session does with a conversation that its user is not a member of.
func (c *client) fillFormer(p *clientv1.Position) {
	id, hash := ids.Conversation(p.GetConversationId()), page.HashPrefix(p.GetHash())
	past, state, view := c.stage.hub.Past(&c.Listener, id, 0), stretch.Resume(ids.Seq(p.GetSeq())), stretch.View{}
	for wait := time.Duration(0); c.link.WaitForRoom(); {
		step := state.Next(view)
		var err error
		switch step.Do {
		case stretch.Read:
			if view.Page, err = past.Read(c.stage.t.Context(), state.After(), hash); err == nil {
				hash = 0
			}
		case stretch.Tell:
			step.Last, err = past.Queue(state.Position(), step.Last)
		case stretch.Hide:
			past.Hide(step.From, step.Last)
		case stretch.Detach:
			c.Detached(nil, id, step.Last)
			return
		case stretch.Diverge:
			c.Forked(nil, id, view.Page.Head, state.Position())
			return
		case stretch.LookUp, stretch.Subscribe, stretch.Attach:
			c.resume()
			return
		default:
			view = stretch.View{}
		}
		if err != nil {
			c.stage.hub.ReadFailed(err, "test", "conversation", id)
			wait = backoff.Wait(c.link.Done(), wait)
			view = stretch.View{}
		}
		state.Done(step)
		c.link.Flush()
	}
}

// next returns the next frame that the client receives.
func (c *client) next() *clientv1.ServerFrame {
	c.stage.t.Helper()
	select {
	case f := <-c.frames:
		return f
	case <-time.After(patience):
		require.FailNow(c.stage.t, "the client gets nothing")
		return nil
	}
}

// seqs returns the seqs of the next n frames, which must be events.
func (c *client) seqs(n int) (seqs []uint64) {
	c.stage.t.Helper()
	for range n {
		f := c.next()
		require.NotNil(c.stage.t, f.GetEvent(), "%v", f)
		seqs = append(seqs, f.GetEvent().GetSeq())
	}
	return seqs
}

// quiet sends the client a marker frame, and requires that no other frame came before it.
func (c *client) quiet() {
	c.stage.t.Helper()
	c.send(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_TokenExpiring{TokenExpiring: &clientv1.TokenExpiring{ExpiresMs: 7}}})
	f := c.next()
	require.NotNil(c.stage.t, f.GetTokenExpiring(), "%v", f)
}

func (c *client) requireForked(head, seq uint64) {
	c.stage.t.Helper()
	f := c.next().GetForked()
	require.Equal(c.stage.t, groupID, f.GetConversationId())
	require.Equal(c.stage.t, head, f.GetHead())
	require.Equal(c.stage.t, seq, f.GetSeq())
}

func (c *client) subscription() *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.subscriptions[groupID]
}
