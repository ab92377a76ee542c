package session

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
)

// History is the part of the history service that sessions call.
type History interface {
	ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest, options ...grpc.CallOption) (*historyv1.ListConversationsResponse, error)
	FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest, options ...grpc.CallOption) (*historyv1.FindMembershipsResponse, error)
	CompareMemberships(ctx context.Context, request *historyv1.CompareMembershipsRequest, options ...grpc.CallOption) (*historyv1.CompareMembershipsResponse, error)
	GetRevocations(ctx context.Context, request *historyv1.GetRevocationsRequest, options ...grpc.CallOption) (*historyv1.GetRevocationsResponse, error)
}

// Verifier checks tokens.
type Verifier interface {
	Verify(ctx context.Context, token string) (auth.Claims, error)
}

// Config configures sessions. All fields are required, except the rates for which 0 has a meaning.
type Config struct {
	MaxFrameBytes          int
	MaxConnectionsPerUser  int
	FrameRate              float64       // frames per second of one session; the burst is ten times this rate
	CommandRatePerUser     float64       // commands per second of one user; the burst is ten times this rate
	ReadRatePerUser        float64       // requests per second of one user that read the history; the burst is ten times this rate; 0 for no limit
	AddRatePerUser         float64       // members per second that one user adds; 0 for no limit
	ClientTraceRatePerUser float64       // client traces per second of one user that are continued
	ConnectTimeout         time.Duration // time limit for the connect frame
	Heartbeat              time.Duration
	TokenWarning           time.Duration // time before a token's expiry at which the client is warned
	HistoryTimeout         time.Duration // time limit of one call of history
	RevocationInterval     time.Duration // interval at which revocations are read, in case notices were lost
}

// Deps are the dependencies of sessions. All fields are required.
type Deps struct {
	Config   Config
	Log      *slog.Logger
	Metrics  *metrics.Metrics
	Recorder *flight.Recorder
	Tracer   *flight.Tracer
	Closed   *flight.ClosedLog
	Verifier Verifier
	History  History
	Rooms    *room.Hub
	Requests *requests.Handler
	Acks     *Acks
	// Level returns the installation's protocol level.
	Level func() conversation.Level
}

// Sessions are all sessions of a gateway.
type Sessions struct {
	deps    Deps
	ctx     context.Context //nolint:containedctx // the lifetime of the sessions: links call back without a context
	workers sync.WaitGroup
	turns   chan struct{} // limits the concurrent calls of the history service
	unheard chan struct{} // signalled when a notice of revoked tokens may have been lost
	missed  chan struct{} // signalled when a notice of a membership may have been lost

	mu       sync.Mutex
	closed   bool
	accepted uint32 // number of sessions since the start
	byID     map[ids.Connection]*Session
	users    map[ids.User]*user
}

// user is the state that the sessions of one user on this gateway share. Guarded by Sessions.mu, except id, caller, turns and
// lookups.
type user struct {
	id       ids.User
	caller   requests.Caller
	sessions map[*Session]struct{}
	turns    chan struct{} // limits the user's concurrent calls of the history service
	lookups  lookups
	compared compared
	// revoked is the time up to which tokens issued to the user are refused, Unix ms, as far as this gateway knows.
	revoked int64
}

// New makes an empty table. The background work of its sessions ends with ctx.
func New(ctx context.Context, deps Deps) *Sessions {
	return &Sessions{
		deps: deps, ctx: ctx, turns: make(chan struct{}, maxTurns), unheard: make(chan struct{}, 1), missed: make(chan struct{}, 1),
		byID: map[ids.Connection]*Session{}, users: map[ids.User]*user{},
	}
}

// Wait waits for the background work of sessions. This work ends when the context has ended and all links have ended.
func (a *Sessions) Wait() { a.workers.Wait() }

// NextNumber returns a number that identifies a connection in the recorder.
func (a *Sessions) NextNumber() uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.accepted++
	return a.accepted
}

// Begin makes a session on a link; the session is the link's receiver. It returns nil when the gateway is being stopped.
func (a *Sessions) Begin(l link.Link, number uint32) *Session {
	cfg, encoding, now := &a.deps.Config, l.Describe().Encoding, time.Now()
	s := &Session{
		all: a, id: ids.Connection(uuid.NewString()), number: number, link: l, since: now,
		frames: rate.NewLimiter(rate.Limit(cfg.FrameRate), int(10*cfg.FrameRate)),
	}
	s.listener = room.Listener{ConnectionID: s.id, Number: number, Events: encoding, Answers: encoding, Sender: l, Subscriber: s}
	s.lastHeard.Store(now.UnixNano())
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil
	}
	a.byID[s.id] = s
	count := len(a.byID)
	a.mu.Unlock()
	a.deps.Metrics.Connections.Set(float64(count))
	a.deps.Metrics.Connects.Inc()
	return s
}

// Close stops new sessions from being created, and returns the existing ones.
func (a *Sessions) Close() []*Session {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	return a.list()
}

// enroll registers the session with its user. It returns false if the user has too many sessions.
func (a *Sessions) enroll(s *Session, claims auth.Claims) bool {
	cfg := &a.deps.Config
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.users[claims.User]
	if u == nil {
		u = &user{id: claims.User, sessions: map[*Session]struct{}{}, turns: make(chan struct{}, maxTurnsPerUser), compared: compared{at: time.Now()}, caller: requests.Caller{
			User: claims.User, Commands: rate.NewLimiter(rate.Limit(cfg.CommandRatePerUser), int(10*cfg.CommandRatePerUser)),
		}}
		if cfg.ReadRatePerUser > 0 {
			u.caller.Reads = rate.NewLimiter(rate.Limit(cfg.ReadRatePerUser), int(10*cfg.ReadRatePerUser))
		}
		if cfg.AddRatePerUser > 0 {
			u.caller.Adds = requests.AddLimiter(cfg.AddRatePerUser)
		}
		if a.deps.Tracer.On() {
			u.caller.Traces = flight.Limiter(cfg.ClientTraceRatePerUser)
		}
		a.users[claims.User] = u
	}
	if len(u.sessions) >= cfg.MaxConnectionsPerUser {
		return false
	}
	u.sessions[s] = struct{}{}
	s.user, s.issued = u, issuedMs(claims)
	return true
}

// forget removes a session that has ended from the table.
func (a *Sessions) forget(s *Session, code errcode.CloseCode) {
	a.mu.Lock()
	delete(a.byID, s.id)
	userID := ""
	if u := s.user; u != nil {
		userID = string(u.id)
		delete(u.sessions, s)
		a.purgeUserLocked(u)
	}
	count := len(a.byID)
	a.mu.Unlock()
	a.deps.Metrics.Connections.Set(float64(count))
	a.deps.Metrics.Closed(code)
	a.deps.Log.Debug("a connection ended", "connection", s.id, "user", userID, "code", code.String(), "lasted", time.Since(s.since).Round(time.Millisecond).String())
}

// purgeUserLocked forgets a user without sessions once the user's rate allowances are full again. Forgetting earlier would let the
// user bypass the rate limits by reconnecting.
func (a *Sessions) purgeUserLocked(u *user) {
	if len(u.sessions) == 0 && u.caller.Idle() {
		delete(a.users, u.id)
	}
}

// Sweep does the periodic work of all sessions: heartbeats, timeouts and token expiry. One coarse sweep replaces a timer for each
// session.
func (a *Sessions) Sweep(now time.Time) {
	for _, s := range a.list() {
		s.tick(now)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.users {
		a.purgeUserLocked(u)
	}
}

// Relist starts a comparison of memberships and revocations with the store. It is called when notices may have been lost.
func (a *Sessions) Relist() {
	for _, lost := range []chan struct{}{a.unheard, a.missed} {
		select {
		case lost <- struct{}{}:
		default:
		}
	}
}

// Joined reports that a user became a member of a conversation with the event at seq. The sessions of that user on this gateway
// tell their clients.
func (a *Sessions) Joined(userID ids.User, conversationID ids.Conversation, seq ids.Seq) {
	a.JoinedAt(userID, conversationID, seq, time.Time{})
}

// JoinedAt is Joined with the time at which a worker received the answer to the commit; zero if it is not known.
func (a *Sessions) JoinedAt(userID ids.User, conversationID ids.Conversation, seq ids.Seq, committed time.Time) {
	for _, s := range a.ofUser(userID) {
		s.notice(conversationID, notice{seq, committed.After(s.since.Add(-oldSlack))})
	}
}

// Count returns the number of sessions, and the number of users who have a session.
func (a *Sessions) Count() (sessions, users int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.users {
		if len(u.sessions) > 0 { // a user without sessions stays until the rate allowances are full
			users++
		}
	}
	return len(a.byID), users
}

func (a *Sessions) list() []*Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	sessions := make([]*Session, 0, len(a.byID))
	for _, s := range a.byID {
		sessions = append(sessions, s)
	}
	return sessions
}

// ofUser returns the sessions of a user by id, including those that are still connecting.
func (a *Sessions) ofUser(userID ids.User) []*Session {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.users[userID]
	if u == nil {
		return nil
	}
	sessions := make([]*Session, 0, len(u.sessions))
	for s := range u.sessions {
		sessions = append(sessions, s)
	}
	slices.SortFunc(sessions, func(x, y *Session) int { return cmp.Compare(x.id, y.id) })
	return sessions
}

// firstBeat spreads heartbeats evenly over the interval, however closely together sessions were opened.
func (a *Sessions) firstBeat() time.Duration { return rand.N(a.deps.Config.Heartbeat) }

// listAll reads all conversations of a user, and the time up to which the user's tokens are revoked. Each page has its
// own time limit.
func (a *Sessions) listAll(ctx context.Context, userID ids.User) (all []*historyv1.Summary, revokedBefore int64, err error) {
	request := &historyv1.ListConversationsRequest{UserId: string(userID), Limit: rpc.MaxItems}
	for {
		a.deps.Metrics.Reads[metrics.ReadList].Inc()
		limited, cancel := context.WithTimeout(ctx, a.deps.Config.HistoryTimeout)
		list, err := a.deps.History.ListConversations(limited, request)
		cancel()
		if err != nil {
			return nil, 0, fmt.Errorf("list conversations of a user: %w", err)
		}
		all, revokedBefore = append(all, list.GetConversations()...), max(revokedBefore, list.GetRevokedBeforeMs())
		if !list.GetMore() || len(list.GetConversations()) == 0 {
			return all, revokedBefore, nil
		}
		request.After = all[len(all)-1].GetConversationId()
	}
}
