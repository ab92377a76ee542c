package fleet

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/conversation"
)

const (
	aliveSubject = "ops.alive"
	whoSubject   = "ops.who"
	allPrefix    = "ops.all."
	onePrefix    = "ops.one."
	answerPrefix = "ops.answer."
)

const (
	// beat is the interval of an instance's signs of life. After lifetime without a sign of life, the instance counts as
	// gone. For the time doubt after that, it may still be working without a connection to NATS.
	beat     = 5 * time.Second
	lifetime = 3*beat + time.Second
	doubt    = 10 * time.Minute
	// settle is how long to wait for signs of life if no instance of a service is known.
	settle = 300 * time.Millisecond
	// gap is the minimum time between two signs of life that an instance sends on request. Any instance may request signs
	// of life, and every instance receives all of them.
	gap = settle / 6
	// maxMembers limits the number of other instances that are remembered.
	maxMembers = 4096
	// maxAnswering limits the queries that are answered at the same time; further queries are refused.
	maxAnswering = 16
	// defaultTimeout is the time limit of a handler if the query has none.
	defaultTimeout = 2 * time.Second
	maxTimeout     = 30 * time.Second
)

// Config identifies an instance. All fields are required.
type Config struct {
	// NATS is closed by the caller, after Run has returned.
	NATS *nats.Conn
	// Service is "gateway" or "delivery". Instance is a name that is new with every start. Both become parts of subjects,
	// so they consist of at most 64 letters, digits, - and _.
	Service, Instance string
	Log               *slog.Logger
}

// Member is an instance that has sent a sign of life recently.
type Member struct {
	Instance, Service string
	Started           time.Time
	// Level is the highest protocol level that the instance knows.
	Level conversation.Level
	// Version is the version of the instance's program; empty if the instance does not report it.
	Version string
}

// Fleet is this instance among all instances. It is a grpc.ServiceRegistrar. Queries work while Run runs.
type Fleet struct {
	cfg     Config
	started time.Time
	methods map[string]method // methods by name without package and service; written before Run

	answering sync.WaitGroup
	turns     chan struct{}
	called    chan struct{} // holds a token when a sign of life was requested

	mu        sync.Mutex
	listening time.Time         // when Run began; zero before Run
	members   map[string]member // all instances, including instances that are gone, while there is room
	forgotten time.Time         // of the instances that are gone and no longer remembered, the latest time at which one went
	asked     time.Time         // when signs of life were last requested
	heard     chan struct{}     // closed and replaced when a member appears
}

type member struct {
	Member

	lastHeard time.Time
	left      time.Time // when the instance announced that it leaves; zero if it did not
}

func (m member) isThere(now time.Time) bool {
	return m.left.IsZero() && now.Sub(m.lastHeard) <= lifetime
}

// gone returns the time until which an instance that is not live may have been working.
func (m member) gone(now time.Time) time.Time {
	if !m.left.IsZero() {
		return m.left
	}
	return earlier(now, m.lastHeard.Add(doubt))
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

type method struct {
	handle grpc.MethodHandler
	impl   any
}

var _ grpc.ServiceRegistrar = (*Fleet)(nil)

// New makes an instance that is not visible to others before Run.
func New(cfg Config) *Fleet {
	return &Fleet{
		cfg: cfg, started: time.Now(), methods: map[string]method{}, turns: make(chan struct{}, maxAnswering),
		called: make(chan struct{}, 1), members: map[string]member{}, heard: make(chan struct{}),
	}
}

// RegisterService adds the queries that this instance answers. All must be added before Run. Like gRPC's RegisterService,
// it panics on a programming error.
func (f *Fleet) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("fleet: %T does not implement %v", impl, want)) //nolint:forbidigo // like gRPC: the interface returns no error
	}
	for _, m := range desc.Methods {
		if _, twice := f.methods[m.MethodName]; twice {
			panic("fleet: two services have the method " + m.MethodName) //nolint:forbidigo // like gRPC: the interface returns no error
		}
		f.methods[m.MethodName] = method{m.Handler, impl}
	}
}

// Run sends signs of life and answers queries until ctx ends; it returns when the last answer is sent.
func (f *Fleet) Run(ctx context.Context) error {
	subscriptions := []struct {
		subject string
		take    nats.MsgHandler
	}{
		{aliveSubject, f.hear},
		{whoSubject, func(*nats.Msg) { f.call() }},
		{allPrefix + f.cfg.Service + ".*", func(msg *nats.Msg) { f.take(ctx, msg) }},
		{onePrefix + f.cfg.Instance + "." + f.cfg.Service + ".*", func(msg *nats.Msg) { f.take(ctx, msg) }},
	}
	defer f.answering.Wait()
	for _, s := range subscriptions {
		sub, err := f.cfg.NATS.Subscribe(s.subject, s.take)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", s.subject, err)
		}
		ended := make(chan struct{})
		sub.SetClosedHandler(func(string) { close(ended) })
		defer func() {
			if sub.Unsubscribe() == nil {
				<-ended // no more queries are accepted, so the running answers can be awaited
			}
		}()
	}
	f.mu.Lock()
	f.listening = time.Now()
	f.mu.Unlock()
	f.announce(false)
	f.askWho()
	f.sayAlive(ctx)
	return nil
}

// sayAlive sends signs of life until ctx ends: periodically, and on request, unless the last one was very recent.
func (f *Fleet) sayAlive(ctx context.Context) {
	called := f.called
	var rested <-chan time.Time
	timer := time.NewTimer(nextBeat())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			f.announce(true)
			return
		case <-timer.C:
			f.announce(false)
			timer.Reset(nextBeat())
		case <-called:
			f.announce(false)
			called, rested = nil, time.After(gap)
		case <-rested:
			called = f.called
		}
	}
}

// nextBeat returns a random time, so that instances that started together do not send together.
func nextBeat() time.Duration { return beat*3/4 + rand.N(beat/2) }

func (f *Fleet) call() {
	select {
	case f.called <- struct{}{}:
	default:
	}
}

// announce publishes that this instance is live, or about to leave. Without a connection the message is lost; the next
// one follows soon.
func (f *Fleet) announce(leaving bool) {
	data, err := (&brokerv1.Alive{
		Instance: f.cfg.Instance, Service: f.cfg.Service, StartedMs: f.started.UnixMilli(), Leaving: leaving,
		Level: uint32(conversation.MaxLevel()), Version: buildinfo.Read().Version(),
	}).MarshalVT()
	if err == nil {
		err = f.cfg.NATS.Publish(aliveSubject, data)
	}
	if err != nil {
		f.cfg.Log.Debug("could not send a sign of life", "error", err)
	}
}

func (f *Fleet) hear(msg *nats.Msg) {
	var alive brokerv1.Alive
	if err := proto.Unmarshal(msg.Data, &alive); err != nil {
		f.cfg.Log.Warn("a sign of life cannot be decoded", "error", err)
		return
	}
	if !conversation.ValidUser(alive.GetInstance()) || !conversation.ValidUser(alive.GetService()) {
		return // no instance sent this: names of instances are valid in subjects and have a limited length
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	before, known := f.members[alive.GetInstance()]
	if !known && !f.makeRoomLocked(now) {
		return
	}
	m := member{
		Member: Member{
			Instance: alive.GetInstance(), Service: alive.GetService(), Started: time.UnixMilli(alive.GetStartedMs()),
			Level: conversation.Level(alive.GetLevel()), Version: alive.GetVersion(),
		},
		lastHeard: now,
	}
	if alive.GetLeaving() {
		m.left = now
	}
	f.members[m.Instance] = m
	if m.isThere(now) && !before.isThere(now) {
		close(f.heard)
		f.heard = make(chan struct{})
	}
}

// makeRoomLocked makes room for one more instance by removing instances that are gone. It returns false if there is still
// no room; answers to operators then lack an instance.
func (f *Fleet) makeRoomLocked(now time.Time) bool {
	if len(f.members) < maxMembers {
		return true
	}
	for instance, m := range f.members {
		if !m.isThere(now) {
			f.forgotten = later(f.forgotten, m.gone(now))
			delete(f.members, instance)
		}
	}
	if len(f.members) < maxMembers {
		return true
	}
	f.forgotten = now
	return false
}

// Settled returns the time since which no instance of a service has gone. Every instance that was live after this time is
// still among the Members. The records of an instance that has gone are lost.
func (f *Fleet) Settled(service string) time.Time {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listening.IsZero() {
		return now
	}
	settled := later(f.listening, f.forgotten)
	for _, m := range f.members {
		if m.Service == service && !m.isThere(now) {
			settled = later(settled, m.gone(now))
		}
	}
	return settled
}

// Members returns the instances of a service with a recent sign of life, by name.
func (f *Fleet) Members(service string) []Member {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	var found []Member
	for _, m := range f.members {
		if m.Service == service && m.isThere(now) {
			found = append(found, m.Member)
		}
	}
	slices.SortFunc(found, func(a, b Member) int { return strings.Compare(a.Instance, b.Instance) })
	return found
}

// askWho requests signs of life from all instances, unless it did so recently.
func (f *Fleet) askWho() {
	f.mu.Lock()
	recently := time.Since(f.asked) < settle
	if !recently {
		f.asked = time.Now()
	}
	f.mu.Unlock()
	if !recently {
		_ = f.cfg.NATS.Publish(whoSubject, nil) // like any query, the request is lost without a connection
	}
}

// expected returns the instances whose answers to wait for. If no instance is known, it first requests signs of life and
// waits a moment.
func (f *Fleet) expected(ctx context.Context, service string) []Member {
	patience := time.NewTimer(settle)
	defer patience.Stop()
	for {
		f.mu.Lock()
		heard := f.heard
		f.mu.Unlock()
		if members := f.Members(service); len(members) > 0 {
			return members
		}
		f.askWho()
		select {
		case <-heard:
		case <-patience.C:
			return nil
		case <-ctx.Done():
			return nil
		}
	}
}
