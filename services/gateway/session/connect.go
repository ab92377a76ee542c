package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
	"github.com/runnelhq/runnel/services/gateway/requests"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/stretch"
)

// connect authenticates the session, reports the state of its conversations to the client, and subscribes to them. It runs
// on the reader: no other frame of this client is handled before it has finished.
func (s *Session) connect(id uint64, request *clientv1.Connect) {
	deps := &s.all.deps
	if field, rule := checkConnect(request); field != "" {
		deps.Metrics.Rejects[metrics.RejectProtocol].Inc()
		s.refuse(id, codeInvalid, "connect."+field, rule)
		s.link.Close(errcode.CloseProtocol, "the connect frame breaks a rule")
		return
	}
	ctx, cancel := context.WithTimeout(s.all.ctx, deps.Config.HistoryTimeout)
	defer cancel()
	claims, err := deps.Verifier.Verify(ctx, request.GetToken())
	if err != nil {
		s.refuseToken(id, err)
		return
	}
	s.device, s.client, s.accepted = cmp.Or(claims.Device, ids.Device(request.GetDeviceId())), request.GetClient(), request.GetAccepted()
	s.name = claims.Name
	s.listener.User, s.listener.Receipts = claims.User, !request.GetNoReceipts()
	if request.GetBodyBytes() {
		s.listener.Events = s.listener.Answers.WithBodyBytes()
	}
	s.setExpiry(claims)
	// From here on, notices that the user joined a conversation reach this session. They are held back until the
	// subscriptions exist.
	if !s.all.enroll(s, claims) {
		deps.Metrics.Rejects[metrics.RejectLimit].Inc()
		deps.Metrics.Limits[metrics.LimitUserConnections].Inc()
		s.refuse(id, conversationv1.ErrorCode_ERROR_CODE_LIMIT, "", "the user has too many connections")
		s.link.Close(errcode.CloseOverloaded, "the user has too many connections")
		return
	}
	if reads := s.user.caller.Reads; reads != nil && !reads.Allow() {
		deps.Metrics.Rejects[metrics.RejectLimit].Inc()
		deps.Metrics.Limits[metrics.LimitReadRate].Inc()
		s.refuseLimited(id, "too many requests of this user")
		s.link.Close(errcode.CloseOverloaded, "too many requests of this user")
		return
	}
	if !s.hasRoom() {
		deps.Metrics.Rejects[metrics.RejectLimit].Inc()
		deps.Metrics.Limits[metrics.LimitConnections].Inc()
		s.refuse(id, conversationv1.ErrorCode_ERROR_CODE_LIMIT, "", "the gateway is full")
		s.link.Close(errcode.CloseOverloaded, "the gateway is full")
		return
	}
	summaries, revokedBefore, err := s.all.listAll(s.all.ctx, claims.User)
	if err != nil {
		deps.Log.Warn("a client could not connect", "connection", s.id, "error", err)
		s.refuseUnavailable(id, "the history service is unavailable; reconnect")
		return
	}
	if s.all.revoke(claims.User, revokedBefore, s); s.all.isRevoked(s) {
		deps.Log.Info("a token was refused", "connection", s.id, "remote", s.link.Describe().Remote, "reason", tokenRevoked)
		deps.Metrics.Rejects[metrics.RejectRevoked].Inc()
		s.refuse(id, codeUnauthenticated, "connect.token", tokenRevoked)
		s.link.Close(errcode.CloseUnauthenticated, tokenRevoked)
		return
	}
	plan := planResume(request, summaries)
	former, unknown, err := s.all.sortFormer(claims.User, plan.former)
	if err != nil {
		deps.Log.Warn("a client could not connect", "connection", s.id, "error", err)
		s.refuseUnavailable(id, "the history service is unavailable; reconnect")
		return
	}
	plan.former = former
	s.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Connected{Connected: s.connected(summaries)}})
	s.tellUnknown(unknown)
	s.subscribeAll(summaries, plan)
}

func (s *Session) hasRoom() bool {
	hasRoom := s.authenticated
	s.authenticated = nil // release the function and what it references
	return hasRoom == nil || hasRoom()
}

// refuseToken answers a connect whose token was not verified.
func (s *Session) refuseToken(id uint64, err error) {
	deps := &s.all.deps
	if tokenMayPass(err) {
		deps.Log.Info("a client could not be authenticated", "connection", s.id, "error", err)
		s.refuseUnavailable(id, err.Error()+"; reconnect")
		return
	}
	problem := tokenProblem(err)
	deps.Log.Info("a token was refused", "connection", s.id, "remote", s.link.Describe().Remote, "reason", problem)
	s.refuse(id, codeUnauthenticated, "connect.token", problem)
	code, because := errcode.CloseUnauthenticated, metrics.RejectToken
	if errors.Is(err, auth.ErrExpired) {
		code, because = errcode.CloseTokenExpired, metrics.RejectExpired // the client can connect with a new token, so it is asked to reconnect
	}
	deps.Metrics.Rejects[because].Inc()
	s.link.Close(code, "the token was refused")
}

// refuseUnavailable refuses a connect that cannot be carried out now, and asks the client to reconnect later.
func (s *Session) refuseUnavailable(id uint64, message string) {
	s.all.deps.Metrics.Rejects[metrics.RejectUnavailable].Inc()
	s.refuse(id, codeUnavailable, "", message)
	s.link.Close(errcode.CloseUnavailable, message)
}

func checkConnect(request *clientv1.Connect) (field, rule string) {
	if !conversation.ValidUser(request.GetDeviceId()) {
		return "device_id", conversation.UserRule
	}
	if len(request.GetResume()) > protocol.MaxResumePositions {
		return "resume", fmt.Sprintf("must have at most %d entries", protocol.MaxResumePositions)
	}
	for i, p := range request.GetResume() {
		if !conversation.ValidID(p.GetConversationId()) {
			return fmt.Sprintf("resume[%d].conversation_id", i), "is not a conversation id"
		}
		if p.GetSeq() > protocol.MaxSeq {
			return fmt.Sprintf("resume[%d].seq", i), "is beyond any event"
		}
		if n := len(p.GetHash()); n != 0 && n != chain.PrefixSize {
			return fmt.Sprintf("resume[%d].hash", i), fmt.Sprintf("must be empty, or the first %d bytes of the event's hash", chain.PrefixSize)
		}
	}
	if len(request.GetClient()) > protocol.MaxClientNameBytes {
		return "client", fmt.Sprintf("must be at most %d characters", protocol.MaxClientNameBytes)
	}
	for i := range len(request.GetClient()) {
		if b := request.GetClient()[i]; b < ' ' || b > '~' {
			return "client", "must be printable ASCII"
		}
	}
	if _, known := clientv1.Start_name[int32(request.GetStart())]; !known {
		return "start", "is not known to this version"
	}
	return "", ""
}

// tokenMayPass reports whether the same token may be accepted later: because it cannot be checked now, or because the
// clocks of its issuer and of this gateway differ.
func tokenMayPass(err error) bool {
	return errors.Is(err, auth.ErrKeysUnavailable) || errors.Is(err, auth.ErrNotYetValid)
}

// tokenProblem describes what is wrong with a token, without quoting any part of it.
func tokenProblem(err error) string {
	for _, known := range []error{
		auth.ErrExpired, auth.ErrAudience, auth.ErrIssuer, auth.ErrSubject, auth.ErrLifetime, auth.ErrType, auth.ErrMalformed, auth.ErrSignature,
	} {
		if errors.Is(err, known) {
			return err.Error()
		}
	}
	return "the token could not be checked"
}

func (s *Session) connected(summaries []*historyv1.Summary) *clientv1.Connected {
	first := summaries[:min(len(summaries), protocol.MaxConnectedConversations)]
	cfg := &s.all.deps.Config
	answer := &clientv1.Connected{
		ConnectionId: string(s.id), UserId: string(s.user.id),
		HeartbeatMs:    uint32(cfg.Heartbeat.Milliseconds()),
		TokenExpiresMs: s.expires.Load(),
		ServerTimeMs:   time.Now().UnixMilli(),
		MaxFrameBytes:  uint32(cfg.MaxFrameBytes),
		Conversations:  make([]*clientv1.Conversation, 0, len(first)),
		More:           len(summaries) > len(first),
		Level:          uint32(s.all.deps.Level()),
		Limits:         s.limits(),
	}
	size, most := 0, s.all.deps.Rooms.PageBytes(s.listener.Answers)
	for _, summary := range first {
		one := requests.Conversation(summary)
		if size += one.SizeVT(); size > most {
			answer.More = true // the client lists the remaining conversations
			break
		}
		answer.Conversations = append(answer.Conversations, one)
	}
	return answer
}

// subscribeAll subscribes to all conversations. A conversation joined since the list was read is reported by its notice.
func (s *Session) subscribeAll(summaries []*historyv1.Summary, plan resumePlan) {
	subscriptions, now := make(map[ids.Conversation]*room.Subscription, len(summaries)), time.Now()
	subscribed, recorder := make([]*historyv1.Summary, 0, len(summaries)), s.all.deps.Recorder
	active := make(map[ids.Conversation]*place, len(summaries)+len(plan.former))
	// Made at once: a client may have thousands of conversations.
	made, places, named := make([]room.Subscription, len(summaries)), make([]place, len(summaries)), s.all.deps.Rooms.Named(summaries)
	s.mu.Lock()
	s.places.active = active
	s.mu.Unlock()
	for i, summary := range summaries {
		id := named[i]
		position, base := plan.from[id], plan.base(summary)
		if position.GetSeq() > summary.GetHead() {
			s.Forked(nil, id, ids.Seq(summary.GetHead()), ids.Seq(position.GetSeq())) // the list contains everything committed so far
			continue
		}
		if position != nil && base > 0 {
			recorder.Subscription(gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND, now, recorder.KeyOf(id), s.number, 0, 1, base)
		}
		s.listener.Init(&made[i], summary, base, position)
		subscriptions[id] = &made[i]
		subscribed = append(subscribed, summary)
	}
	s.mu.Lock()
	for id, subscription := range subscriptions {
		places[0] = place{State: stretch.Live(), subscription: subscription}
		active[id], places = &places[0], places[1:]
	}
	for _, p := range plan.former {
		active[ids.Conversation(p.GetConversationId())] = &place{State: stretch.Resume(ids.Seq(p.GetSeq())), hash: page.HashPrefix(p.GetHash())}
	}
	s.mu.Unlock()
	s.all.deps.Rooms.Enter(subscriptions, subscribed)

	s.nextBeat.Store(now.Add(s.all.firstBeat()).UnixNano())
	s.open()
	if len(plan.former) > 0 {
		s.all.workers.Go(func() { s.catchUpAll(plan.former) })
	}
}

// open begins to handle notices, including those that arrived while the session was connecting.
func (s *Session) open() {
	s.mu.Lock()
	notices := s.notices
	s.notices = early{}
	s.state.Store(stateOpen)
	for conversationID, known := range notices.all {
		if known.now != 0 {
			s.noticeLocked(conversationID, notice{known.now, true})
		}
		s.noticeLocked(conversationID, notice{seq: known.any})
	}
	s.mu.Unlock()
	if notices.lost {
		s.all.Relist()
	}
}

// catchUpAll handles the conversations that the client named but whose member its user is not. It sends the client the
// events that it does not have, one conversation after the other.
func (s *Session) catchUpAll(positions []*clientv1.Position) {
	for _, position := range positions {
		conversationID := ids.Conversation(position.GetConversationId())
		s.mu.Lock()
		p := s.places.active[conversationID]
		s.mu.Unlock()
		if p != nil {
			s.catchUp(conversationID, p)
		}
	}
}
