package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const (
	codeInvalid  = conversationv1.ErrorCode_ERROR_CODE_INVALID
	codeProtocol = conversationv1.ErrorCode_ERROR_CODE_PROTOCOL

	// maxAckPositions is the most positions of one acknowledgement.
	maxAckPositions = 1000
)

// handle carries out one frame. It runs on the reader and does not block on other services, except for connect.
func (c *conn) handle(f *clientv1.ClientFrame) {
	id := f.GetId()
	if c.state.Load() != stateOpen {
		connect, isConnect := f.GetRequest().(*clientv1.ClientFrame_Connect)
		if !isConnect || c.state.Load() != stateAccepted {
			c.gw.metrics.Rejects[metrics.RejectProtocol].Inc()
			c.refuse(id, codeProtocol, "", "the first frame must be connect")
			c.close(errcode.CloseProtocol, "the first frame must be connect")
			return
		}
		c.state.Store(stateConnecting)
		c.connect(id, connect.Connect)
		return
	}
	switch request := f.GetRequest().(type) {
	case *clientv1.ClientFrame_Connect:
		c.refuse(id, codeProtocol, "connect", "the connection is authenticated already; use refresh for a new token")
	case *clientv1.ClientFrame_Refresh:
		c.refresh(id, request.Refresh)
	case *clientv1.ClientFrame_Submit:
		c.submit(id, request.Submit)
	case *clientv1.ClientFrame_Read:
		c.readPage(id, request.Read)
	case *clientv1.ClientFrame_ReadMessages:
		c.readMessages(id, request.ReadMessages)
	case *clientv1.ClientFrame_ListConversations:
		c.listConversations(id, request.ListConversations)
	case *clientv1.ClientFrame_ListMembers:
		c.listMembers(id, request.ListMembers)
	case *clientv1.ClientFrame_Ack:
		c.ack(id, request.Ack)
	case *clientv1.ClientFrame_Pong:
		c.beatPending.Store(0)
	default:
		c.refuse(id, codeInvalid, "", "the frame has no request")
	}
}

// refresh puts a newer token of the same user in force. Its keys may have to be fetched, so it does not hold up the reader.
func (c *conn) refresh(id uint64, r *clientv1.Refresh) {
	c.background(id, func(ctx context.Context) {
		claims, err := c.gw.verifier.Verify(ctx, r.GetToken())
		switch {
		case errors.Is(err, auth.ErrKeysUnavailable):
			c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", "the keys to check tokens with are away; try again")
		case err != nil:
			c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "refresh.token", tokenProblem(err))
		case claims.User != c.user.id:
			c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_FORBIDDEN, "refresh.token", "is of another user")
		default:
			c.renew(ctx, id, claims)
		}
	})
}

// renew puts a good token in force, unless it was revoked.
func (c *conn) renew(ctx context.Context, id uint64, claims auth.Claims) {
	if err := c.gw.askRevocation(ctx, c.user.id); err != nil {
		c.refuseCall(id, err)
		return
	}
	if !c.gw.replaceToken(c, claims) {
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "refresh.token", tokenRevoked)
		return
	}
	c.setExpiry(claims)
	c.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Refreshed{
		Refreshed: &clientv1.Refreshed{TokenExpiresMs: c.expires.Load()},
	}})
}

// call runs a call of history and sends its answer.
func (c *conn) call(id uint64, do func(ctx context.Context) (*clientv1.ServerFrame, error)) {
	c.background(id, func(ctx context.Context) {
		answer, err := do(ctx)
		if err != nil {
			c.refuseCall(id, err)
			return
		}
		if c.waitForRoom() {
			c.reply(answer)
		}
	})
}

// background does what calls other services off the reader, a few at a time.
func (c *conn) background(id uint64, do func(ctx context.Context)) {
	if c.calls.Add(1) > maxCalls {
		c.calls.Add(-1)
		c.gw.metrics.Limits[metrics.LimitCalls].Inc()
		c.limited(id, "too many requests of this kind at once on this connection")
		return
	}
	c.gw.workers.Go(func() {
		defer c.calls.Add(-1)
		ctx, cancel := context.WithTimeout(c.gw.ctx, c.gw.cfg.HistoryTimeout)
		defer cancel()
		do(ctx)
	})
}

// refuseCall translates an error of the history service for the client, once, and logs its cause.
func (c *conn) refuseCall(id uint64, err error) {
	switch status.Code(errors.Unwrap(err)) {
	case codes.NotFound:
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_NOT_FOUND, "conversation_id", "no such conversation, or you are not a member of it")
	case codes.InvalidArgument:
		c.refuse(id, codeInvalid, "", "the request breaks a rule of the history service")
	default:
		if !c.isGone() {
			c.gw.log.Warn("a call of the history service failed", "connection", c.id, "error", err)
		}
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", "the history is away; try again")
	}
}

// ack notes how far the client has received and read, and passes it on. A position that does not exist is skipped, and not
// answered unless the frame has an id: acknowledgements have none.
func (c *conn) ack(id uint64, a *clientv1.Ack) {
	if len(a.GetPositions()) > maxAckPositions {
		c.refuse(id, codeInvalid, "ack.positions", fmt.Sprintf("must have at most %d entries", maxAckPositions))
		if c.bad++; c.bad >= maxBadFrames {
			c.close(errcode.CloseProtocol, "acknowledgements break a rule")
		}
		return
	}
	now, firstBad := time.Now(), -1
	for i, p := range a.GetPositions() {
		c.mu.Lock()
		s := c.seats[p.GetConversationId()]
		c.mu.Unlock()
		if s == nil {
			continue // left meanwhile, or never a member: nobody's cursor moves
		}
		if !s.acknowledged(p.GetDelivered(), p.GetRead(), now, c.gw.cfg.AckTimeout) {
			c.gw.metrics.EarlyAcks.Inc()
			if firstBad < 0 {
				firstBad = i
			}
			continue
		}
		c.gw.acks.add(p.GetConversationId(), c.user.id, p.GetDelivered(), p.GetRead())
	}
	if firstBad < 0 {
		c.early = 0
		return
	}
	c.refuse(id, codeInvalid, fmt.Sprintf("ack.positions[%d]", firstBad), "is beyond the newest event")
	if c.early++; c.early >= maxEarlyAcks {
		c.close(errcode.CloseProtocol, "acknowledgements name events that do not exist")
	}
}
