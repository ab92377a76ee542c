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
	// beat is how often an instance says that it is there; after lifetime without a word it counts as gone. For as long as
	// doubt it may still be at work, with only its connection to NATS away.
	beat     = 5 * time.Second
	lifetime = 3*beat + time.Second
	doubt    = 10 * time.Minute
	// settle is what instances get to say that they are there, when nobody of a service is known.
	settle = 300 * time.Millisecond
	// gap is the least time between two times that an instance says so because it was asked: everybody may ask, and everybody
	// hears every answer.
	gap = settle / 6
	// maxMembers bounds what is remembered of others.
	maxMembers = 4096
	// maxAnswering bounds the questions that are answered at once; above it one is told to ask again.
	maxAnswering = 16
	// defaultTimeout is what a handler gets when the question does not say.
	defaultTimeout = 2 * time.Second
	maxTimeout     = 30 * time.Second
)

// Config says who an instance is. All fields are required.
type Config struct {
	// NATS is closed by the caller, after Run has returned.
	NATS *nats.Conn
	// Service is "gateway" or "delivery"; Instance a name that is new with every start. Both become part of subjects: at most
	// 64 letters, digits, - and _.
	Service, Instance string
	Log               *slog.Logger
}

// Member is an instance that was heard of lately.
type Member struct {
	Instance, Service string
	Started           time.Time
	// Level is the highest protocol level that it knows.
	Level conversation.Level
}

// Fleet is one instance among all. It is a grpc.ServiceRegistrar. Asking works while Run does.
type Fleet struct {
	cfg     Config
	started time.Time
	methods map[string]method // by name without package and service; written before Run

	answering sync.WaitGroup
	turns     chan struct{}
	called    chan struct{} // holds a token when somebody wants to know who is there

	mu        sync.Mutex
	listening time.Time         // since when; zero before Run
	members   map[string]member // those that are gone, too, while there is room
	forgotten time.Time         // the latest that somebody went who is not remembered
	asked     time.Time         // when everybody was last asked to say that they are there
	heard     chan struct{}     // closed and replaced when a member appears
}

type member struct {
	Member

	lastHeard time.Time
	left      time.Time // when it said that it leaves; zero when it did not
}

func (m member) isThere(now time.Time) bool {
	return m.left.IsZero() && now.Sub(m.lastHeard) <= lifetime
}

// gone is until when one that is not there may have been at work.
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

// New makes an instance that is not heard of before Run.
func New(cfg Config) *Fleet {
	return &Fleet{
		cfg: cfg, started: time.Now(), methods: map[string]method{}, turns: make(chan struct{}, maxAnswering),
		called: make(chan struct{}, 1), members: map[string]member{}, heard: make(chan struct{}),
	}
}

// RegisterService adds what can be asked of this instance; all is added before Run. Like gRPC's it does not return from a
// mistake in the program.
func (f *Fleet) RegisterService(desc *grpc.ServiceDesc, impl any) {
	if want := reflect.TypeOf(desc.HandlerType).Elem(); !reflect.TypeOf(impl).Implements(want) {
		panic(fmt.Sprintf("fleet: %T does not implement %v", impl, want)) //nolint:forbidigo // as gRPC: the interface has no error
	}
	for _, m := range desc.Methods {
		if _, twice := f.methods[m.MethodName]; twice {
			panic("fleet: two services have the method " + m.MethodName) //nolint:forbidigo // as gRPC: the interface has no error
		}
		f.methods[m.MethodName] = method{m.Handler, impl}
	}
}

// Run makes the instance heard of and answers questions until ctx ends; it returns when the last answer is given.
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
				<-ended // no question is taken any more, so that answering can be waited for
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

// sayAlive has the instance heard of until ctx ends: now and then, and when it is asked to, but for a moment after that.
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

// nextBeat keeps instances that began together from speaking together.
func nextBeat() time.Duration { return beat*3/4 + rand.N(beat/2) }

func (f *Fleet) call() {
	select {
	case f.called <- struct{}{}:
	default:
	}
}

// announce says that this instance is there, or about to leave. It is lost while the connection is away; the next comes soon.
func (f *Fleet) announce(leaving bool) {
	data, err := (&brokerv1.Alive{
		Instance: f.cfg.Instance, Service: f.cfg.Service, StartedMs: f.started.UnixMilli(), Leaving: leaving,
		Level: uint32(conversation.MaxLevel()),
	}).MarshalVT()
	if err == nil {
		err = f.cfg.NATS.Publish(aliveSubject, data)
	}
	if err != nil {
		f.cfg.Log.Debug("could not say that this instance is there", "error", err)
	}
}

func (f *Fleet) hear(msg *nats.Msg) {
	var alive brokerv1.Alive
	if err := proto.Unmarshal(msg.Data, &alive); err != nil {
		f.cfg.Log.Warn("a sign of life cannot be decoded", "error", err)
		return
	}
	if !conversation.ValidUser(alive.GetInstance()) || !conversation.ValidUser(alive.GetService()) {
		return // not from an instance: theirs fit in subjects, and in memory
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
			Level: conversation.Level(alive.GetLevel()),
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

// makeRoomLocked forgets instances that are gone when there is no room for another. It returns false when there is none even so;
// then answers to operators lack an instance.
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

// Settled is since when no instance of a service is gone: whoever was there after it is among the Members now. What an
// instance that is gone knew of an earlier time nobody knows.
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

// Members are the instances of a service that were heard of lately, by name.
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

// askWho has everybody say that they are there, at most once in a while.
func (f *Fleet) askWho() {
	f.mu.Lock()
	recently := time.Since(f.asked) < settle
	if !recently {
		f.asked = time.Now()
	}
	f.mu.Unlock()
	if !recently {
		_ = f.cfg.NATS.Publish(whoSubject, nil) // lost like any question while the connection is away
	}
}

// expected are the instances whose answers to wait for. When none is known, those that are there get a moment to say so.
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
