package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	clientv1 "github.com/runnelhq/runnel/proto/runnel/client/v1"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/auth"
	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/frame"
)

const (
	codeInvalid  = conversationv1.ErrorCode_ERROR_CODE_INVALID
	codeProtocol = conversationv1.ErrorCode_ERROR_CODE_PROTOCOL
)

// handle carries out one frame. It runs on the reader and does not block on other services, except for connect.
func (c *conn) handle(f *clientv1.ClientFrame) {
	id := f.GetId()
	if c.state.Load() != stateOpen {
		connect, isConnect := f.GetRequest().(*clientv1.ClientFrame_Connect)
		if !isConnect || c.state.Load() != stateAccepted {
			c.gw.metrics.rejects[rejectProtocol].Inc()
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

// submit takes a command to the broker; the answer is sent when its outcome arrives.
func (c *conn) submit(id uint64, s *clientv1.Submit) {
	body, commandID := s.GetBody(), s.GetCommandId()
	if !conversation.ValidCommandID(commandID) {
		c.refuse(id, codeInvalid, "submit.command_id", "must be a UUIDv7 in canonical lower-case form")
		return
	}
	if err := conversation.Validate(c.user.id, body); err != nil {
		c.refuse(id, codeInvalid, fieldPath("submit.body", err.Field), err.Rule)
		return
	}
	conversationID := s.GetConversationId()
	if create := body.GetCreate(); create != nil {
		if conversationID != "" {
			c.refuse(id, codeInvalid, "submit.conversation_id", "must be empty for create: the id follows from the command")
			return
		}
		conversationID = conversation.CreateID(c.user.id, commandID, create)
	} else if !conversation.ValidID(conversationID) {
		c.refuse(id, codeInvalid, "submit.conversation_id", "is not a conversation id")
		return
	}
	if !c.user.commands.Allow() {
		c.gw.metrics.limits[limitCommandRate].Inc()
		c.limited(id, "too many commands of this user")
		return
	}
	salt := make([]byte, chain.SaltSize)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	begun := time.Now()
	span, header := c.gw.trace.begin(c.gw.ctx, c.user, s, conversationID, c.gw.partitions)
	submission := broker.Submission{
		Command: &brokerv1.Command{
			ConversationId: conversationID, Sender: c.user.id, CommandId: commandID, Body: body, Salt: salt,
		},
		Header: header,
		Done: func(outcome *conversationv1.Outcome) {
			c.gw.metrics.outcome(outcome, time.Since(begun))
			c.enqueue(wrap(c.codec, func(dst []byte) []byte { return frame.AppendOutcome(dst, c.codec, id, outcome, span.parent) }))
			c.gw.metrics.framesOut.Inc()
			c.gw.hub.flushSoon(conversationID, c)
			span.end(outcome)
		},
	}
	submission.Accepted = func() {
		c.gw.metrics.accepted.Observe(time.Since(begun).Seconds())
		span.accepted()
		if c.accepted {
			c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Accepted{Accepted: &clientv1.Accepted{RequestId: id}}})
		}
	}
	switch err := c.gw.submitter.Load().Submit(submission); {
	case errors.Is(err, broker.ErrConflict):
		span.abandon(err)
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_IDEMPOTENCY_CONFLICT, "submit.command_id", "the id is in use with another body")
	case err != nil:
		span.abandon(err)
		c.gw.metrics.limits[limitCommands].Inc()
		c.limited(id, "the gateway has too many commands under way")
	}
}

func fieldPath(parent, field string) string {
	if field == "" {
		return parent
	}
	return parent + "." + field
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

func (c *conn) readPage(id uint64, r *clientv1.Read) {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		c.refuse(id, codeInvalid, "read.conversation_id", "is not a conversation id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "read.limit", "must be at most 500")
		return
	case r.GetAfter() != 0 && (r.GetBefore() != 0 || r.GetBackward()):
		c.refuse(id, codeInvalid, "read.after", "cannot be used together with before or backward")
		return
	}
	limit := r.GetLimit()
	if limit == 0 {
		limit = 50
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.reads[readClient].Inc()
		page, err := c.gw.history.Read(ctx, &historyv1.ReadRequest{
			ConversationId: r.GetConversationId(), Viewer: c.user.id,
			After: r.GetAfter(), Before: r.GetBefore(), Limit: limit,
			Backward: r.GetBackward() || r.GetBefore() != 0,
		})
		if err != nil {
			return nil, fmt.Errorf("read conversation: %w", err)
		}
		trimPage(page, c.gw.cfg.SendQueueBytes/4)
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Page{Page: &clientv1.Page{
			Events: page.GetEvents(), Hidden: page.GetHidden(), Head: page.GetHead(), More: page.GetMore(),
		}}}, nil
	})
}

// trimPage shortens a page to about limit bytes, so that an answer never fills the send queue by itself.
func trimPage(page *historyv1.ReadResponse, limit int) {
	size := 0
	for i, event := range page.GetEvents() {
		if size += event.SizeVT(); size <= limit || i == 0 {
			continue
		}
		cut := page.GetEvents()[i].GetSeq()
		backward := cut < page.GetEvents()[0].GetSeq()
		page.Events, page.More = page.GetEvents()[:i], true
		page.Hidden = slices.DeleteFunc(page.GetHidden(), func(r *conversationv1.Range) bool {
			return (backward && r.GetFirst() < cut) || (!backward && r.GetLast() > cut)
		})
		return
	}
}

func (c *conn) listConversations(id uint64, r *clientv1.ListConversations) {
	switch {
	case r.GetAfter() != "" && !conversation.ValidID(r.GetAfter()):
		c.refuse(id, codeInvalid, "list_conversations.after", "is not a conversation id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "list_conversations.limit", "must be at most 500")
		return
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.reads[readList].Inc()
		list, err := c.gw.history.ListConversations(ctx, &historyv1.ListConversationsRequest{
			UserId: c.user.id, After: r.GetAfter(), Limit: r.GetLimit(),
		})
		if err != nil {
			return nil, fmt.Errorf("list conversations: %w", err)
		}
		conversations := make([]*clientv1.Conversation, 0, len(list.GetConversations()))
		for _, s := range list.GetConversations() {
			conversations = append(conversations, clientConversation(s))
		}
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Conversations{
			Conversations: &clientv1.Conversations{Conversations: conversations, More: list.GetMore()},
		}}, nil
	})
}

func (c *conn) listMembers(id uint64, r *clientv1.ListMembers) {
	switch {
	case !conversation.ValidID(r.GetConversationId()):
		c.refuse(id, codeInvalid, "list_members.conversation_id", "is not a conversation id")
		return
	case r.GetAfter() != "" && !conversation.ValidUser(r.GetAfter()):
		c.refuse(id, codeInvalid, "list_members.after", "is not a user id")
		return
	case r.GetLimit() > 500:
		c.refuse(id, codeInvalid, "list_members.limit", "must be at most 500")
		return
	}
	c.call(id, func(ctx context.Context) (*clientv1.ServerFrame, error) {
		c.gw.metrics.reads[readMembers].Inc()
		list, err := c.gw.history.ListMembers(ctx, &historyv1.ListMembersRequest{
			ConversationId: r.GetConversationId(), Viewer: c.user.id, After: r.GetAfter(), Limit: r.GetLimit(),
		})
		if err != nil {
			return nil, fmt.Errorf("list members: %w", err)
		}
		members := make([]*conversationv1.Cursor, 0, len(list.GetMembers()))
		for _, m := range list.GetMembers() {
			members = append(members, m.GetCursor())
		}
		return &clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Members{
			Members: &clientv1.Members{Members: members, More: list.GetMore()},
		}}, nil
	})
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
		c.gw.metrics.limits[limitCalls].Inc()
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

// ack notes how far the client has received and read, and passes it on.
func (c *conn) ack(id uint64, a *clientv1.Ack) {
	if len(a.GetPositions()) > 1000 {
		c.refuse(id, codeInvalid, "ack.positions", "must have at most 1000 entries")
		return
	}
	now := time.Now()
	for i, p := range a.GetPositions() {
		c.mu.Lock()
		s := c.seats[p.GetConversationId()]
		c.mu.Unlock()
		if s == nil {
			continue // left meanwhile, or never a member: nobody's cursor moves
		}
		if !s.acknowledged(p.GetDelivered(), p.GetRead(), now, c.gw.cfg.AckTimeout) {
			c.refuse(id, codeInvalid, fmt.Sprintf("ack.positions[%d]", i), "is beyond the newest event")
			return // one answer; what follows in this frame is not looked at
		}
		c.gw.acks.add(p.GetConversationId(), c.user.id, p.GetDelivered(), p.GetRead())
	}
}

func clientConversation(s *historyv1.Summary) *clientv1.Conversation {
	return &clientv1.Conversation{
		ConversationId: s.GetConversationId(), Kind: s.GetKind(), Name: s.GetName(), Head: s.GetHead(),
		JoinedSeq: s.GetJoinedSeq(), Cursor: s.GetCursor(), Members: s.GetMembers(), Peer: s.GetPeer(),
	}
}
