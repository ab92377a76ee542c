package session

import (
	"context"
	"fmt"
	"time"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/requests"
)

// handle carries out one frame. It runs on the reader and does not wait for other services, except in connect.
func (s *Session) handle(f *clientv1.ClientFrame) {
	id := f.GetId()
	if s.state.Load() != stateOpen {
		connect, isConnect := f.GetRequest().(*clientv1.ClientFrame_Connect)
		if !isConnect || s.state.Load() != stateAccepted {
			s.all.deps.Metrics.Rejects[metrics.RejectProtocol].Inc()
			s.refuse(id, codeProtocol, "", "the first frame must be connect")
			s.link.Close(errcode.CloseProtocol, "the first frame must be connect")
			return
		}
		s.state.Store(stateConnecting)
		s.connect(id, connect.Connect)
		return
	}
	switch request := f.GetRequest().(type) {
	case *clientv1.ClientFrame_Connect:
		s.refuse(id, codeProtocol, "connect", "the connection is authenticated already; use refresh for a new token")
	case *clientv1.ClientFrame_Refresh:
		s.refresh(id, request.Refresh)
	case *clientv1.ClientFrame_Submit:
		if refused := s.all.deps.Requests.Submit(s.all.ctx, &s.user.caller, id, request.Submit, s); refused != nil {
			s.refuseWith(id, refused)
		}
	case *clientv1.ClientFrame_Ack:
		s.ack(id, request.Ack)
	case *clientv1.ClientFrame_Pong:
		s.beatPending.Store(0)
	default:
		s.ask(id, f)
	}
}

// ask carries out a request of requests.Parse on a goroutine of its own.
func (s *Session) ask(id uint64, f *clientv1.ClientFrame) {
	request, refused := s.all.deps.Requests.Parse(f)
	switch {
	case refused != nil:
		s.refuseWith(id, refused)
		return
	case request == nil:
		s.refuse(id, codeInvalid, "", "the frame has no request")
		return
	}
	s.background(id, func(ctx context.Context) (send func()) {
		answer, err := request.Do(ctx, &s.user.caller, requests.Bounds{
			Bytes: s.all.deps.Rooms.PageBytes(s.listener.Answers), EventBytes: s.all.deps.Rooms.PageBytes(s.listener.Events),
		})
		if err != nil {
			return func() { s.refuseCall(id, err) }
		}
		if !s.link.WaitForRoom() {
			return func() {}
		}
		return func() { s.sendAnswer(id, answer) }
	})
}

// background runs calls of other services on separate goroutines, a few at a time. do returns a function that sends the answer. The
// request is no longer counted then: a client that asks again as soon as it has the answer is within its limit.
func (s *Session) background(id uint64, do func(ctx context.Context) (send func())) {
	if s.calls.Add(1) > protocol.MaxOpenRequests {
		s.calls.Add(-1)
		s.all.deps.Metrics.Limits[metrics.LimitCalls].Inc()
		s.refuseLimited(id, "too many requests of this kind at once on this connection")
		return
	}
	s.all.workers.Go(func() {
		ctx, cancel := context.WithTimeout(s.all.ctx, s.all.deps.Config.HistoryTimeout)
		defer cancel()
		send := do(ctx)
		s.calls.Add(-1)
		send()
	})
}

// refuseCall answers a request whose call of the history service failed, and logs the cause.
func (s *Session) refuseCall(id uint64, err error) {
	refused, unexpected := requests.Refusal(err)
	if unexpected && !s.hasEnded() {
		s.all.deps.Log.Warn("a call of the history service failed", "connection", s.id, "error", err)
	}
	s.refuseWith(id, refused)
}

// refresh replaces the token by a newer one of the same user. Verifying a token may fetch keys, so it does not run on the
// reader.
func (s *Session) refresh(id uint64, r *clientv1.Refresh) {
	s.background(id, func(ctx context.Context) (send func()) {
		claims, err := s.all.deps.Verifier.Verify(ctx, r.GetToken())
		switch {
		case err != nil && tokenMayPass(err):
			return func() { s.refuse(id, codeUnavailable, "", err.Error()+"; try again") }
		case err != nil:
			return func() { s.refuse(id, codeUnauthenticated, "refresh.token", tokenProblem(err)) }
		case claims.User != s.user.id:
			return func() {
				s.refuse(id, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "refresh.token", "is of another user")
			}
		case claims.Device != "" && claims.Device != s.device:
			return func() {
				s.refuse(id, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "refresh.token", "is of another device")
			}
		default:
			return s.renew(ctx, id, claims)
		}
	})
}

// renew makes a valid token the session's token, unless the token was revoked. It returns a function that sends the
// answer.
func (s *Session) renew(ctx context.Context, id uint64, claims auth.Claims) (send func()) {
	if err := s.all.askRevocation(ctx, s.user.id); err != nil {
		return func() { s.refuseCall(id, err) }
	}
	if !s.all.replaceToken(s, claims) {
		return func() { s.refuse(id, codeUnauthenticated, "refresh.token", tokenRevoked) }
	}
	s.setExpiry(claims)
	refreshed := &clientv1.Refreshed{TokenExpiresMs: s.expires.Load()}
	return func() {
		s.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Refreshed{Refreshed: refreshed}})
	}
}

// ack records how far the client has received and read, and forwards these positions. It skips a position that does not
// exist, or that exceeds the allowed number, and handles the others. It sends an error only if the frame has an id,
// because acknowledgements need none.
func (s *Session) ack(id uint64, a *clientv1.Ack) {
	positions := a.GetPositions()
	tooMany := len(positions) > protocol.MaxAckPositions
	if tooMany {
		positions = positions[:protocol.MaxAckPositions]
	}
	now, firstBad := time.Now(), -1
	for i, p := range positions {
		subscription := s.subscription(ids.Conversation(p.GetConversationId()))
		if subscription == nil {
			continue // the user has left, or never was a member: no cursor moves
		}
		if !subscription.Acknowledge(ids.Seq(p.GetDelivered()), ids.Seq(p.GetRead()), now) {
			s.all.deps.Metrics.EarlyAcks.Inc()
			if firstBad < 0 {
				firstBad = i
			}
			continue
		}
		s.all.deps.Acks.Add(ids.Conversation(p.GetConversationId()), s.user.id, ids.Seq(p.GetDelivered()), ids.Seq(p.GetRead()))
	}
	if firstBad < 0 {
		s.early = 0
	} else if s.early++; s.early >= maxEarlyAcks {
		s.link.Close(errcode.CloseAhead, "acknowledgements name events that this gateway does not know of")
	}
	switch {
	case tooMany:
		s.refuse(id, codeInvalid, "ack.positions", fmt.Sprintf("must have at most %d entries; the others were ignored", protocol.MaxAckPositions))
		if s.bad++; s.bad >= maxBadFrames {
			s.link.Close(errcode.CloseProtocol, "acknowledgements break a rule")
		}
	case firstBad >= 0:
		s.refuse(id, codeInvalid, fmt.Sprintf("ack.positions[%d]", firstBad), "is beyond the newest event")
	}
}
