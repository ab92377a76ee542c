package gateway

import (
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

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Limits of a connect frame and of its answer.
const (
	maxResume          = 5000
	maxClientName      = 64
	firstConversations = 500
	// maxSeq is beyond what the store can number.
	maxSeq = 1 << 62
)

// connect authenticates the connection, tells the client where its conversations stand, and takes its seats in them.
// It runs on the reader: nothing else of this client is handled before it is done.
func (c *conn) connect(id uint64, request *clientv1.Connect) {
	if field, rule := checkConnect(request); field != "" {
		c.gw.metrics.Rejects[metrics.RejectProtocol].Inc()
		c.refuse(id, codeInvalid, "connect."+field, rule)
		c.close(errcode.CloseProtocol, "the connect frame breaks a rule")
		return
	}
	ctx, cancel := context.WithTimeout(c.gw.ctx, c.gw.cfg.HistoryTimeout)
	defer cancel()
	claims, err := c.gw.verifier.Verify(ctx, request.GetToken())
	if errors.Is(err, auth.ErrKeysUnavailable) {
		c.gw.log.Warn("a client could not be authenticated", "connection", c.id, "error", err)
		c.unavailable(id, "the keys to check tokens with are away; reconnect")
		return
	}
	if err != nil {
		c.gw.log.Info("a token was refused", "connection", c.id, "remote", c.remote, "reason", tokenProblem(err))
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "connect.token", tokenProblem(err))
		code, because := errcode.CloseUnauthenticated, metrics.RejectToken
		if errors.Is(err, auth.ErrExpired) {
			code, because = errcode.CloseTokenExpired, metrics.RejectExpired // a new token helps: reconnect
		}
		c.gw.metrics.Rejects[because].Inc()
		c.close(code, "the token was refused")
		return
	}
	c.device, c.client = request.GetDeviceId(), request.GetClient()
	c.accepted, c.noReceipts = request.GetAccepted(), request.GetNoReceipts()
	if request.GetBodyBytes() {
		c.events = c.codec.WithBytes()
	}
	c.setExpiry(claims)
	// From here on a joined notice finds this connection; it is kept until the seats are taken.
	if !c.gw.enroll(c, claims) {
		c.gw.metrics.Rejects[metrics.RejectLimit].Inc()
		c.gw.metrics.Limits[metrics.LimitUserConnections].Inc()
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_LIMIT, "", "the user has too many connections")
		c.close(errcode.CloseOverloaded, "the user has too many connections")
		return
	}
	summaries, revokedBefore, err := c.gw.listAll(ctx, claims.User)
	if err != nil {
		c.gw.log.Warn("a client could not connect", "connection", c.id, "error", err)
		c.unavailable(id, "the history is away; reconnect")
		return
	}
	if c.gw.revoke(claims.User, revokedBefore, c); c.gw.isRevoked(c) {
		c.gw.log.Info("a token was refused", "connection", c.id, "remote", c.remote, "reason", tokenRevoked)
		c.gw.metrics.Rejects[metrics.RejectRevoked].Inc()
		c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "connect.token", tokenRevoked)
		c.close(errcode.CloseUnauthenticated, tokenRevoked)
		return
	}
	plan := planResume(request, summaries)
	c.reply(&clientv1.ServerFrame{Id: id, Message: &clientv1.ServerFrame_Connected{Connected: c.connected(summaries)}})
	c.takeSeats(summaries, plan)
}

// unavailable answers a connect that cannot be carried out now, and asks the client to come back.
func (c *conn) unavailable(id uint64, message string) {
	c.gw.metrics.Rejects[metrics.RejectUnavailable].Inc()
	c.refuse(id, conversationv1.ErrorCode_ERROR_CODE_UNAVAILABLE, "", message)
	c.close(errcode.CloseUnavailable, message)
}

func checkConnect(request *clientv1.Connect) (field, rule string) {
	if !conversation.ValidUser(request.GetDeviceId()) {
		return "device_id", "must be 1 to 64 characters A-Z a-z 0-9 _ -"
	}
	if len(request.GetResume()) > maxResume {
		return "resume", fmt.Sprintf("must have at most %d entries", maxResume)
	}
	for i, p := range request.GetResume() {
		if !conversation.ValidID(p.GetConversationId()) {
			return fmt.Sprintf("resume[%d].conversation_id", i), "is not a conversation id"
		}
		if p.GetSeq() >= maxSeq {
			return fmt.Sprintf("resume[%d].seq", i), "is beyond any event"
		}
		if n := len(p.GetHash()); n != 0 && n != chain.PrefixSize {
			return fmt.Sprintf("resume[%d].hash", i), fmt.Sprintf("must be empty, or the first %d bytes of the event's hash", chain.PrefixSize)
		}
	}
	if len(request.GetClient()) > maxClientName {
		return "client", fmt.Sprintf("must be at most %d characters", maxClientName)
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

// tokenProblem says what is wrong with a token, without any part of it.
func tokenProblem(err error) string {
	for _, known := range []error{auth.ErrExpired, auth.ErrNotYetValid, auth.ErrAudience, auth.ErrIssuer, auth.ErrSubject, auth.ErrMalformed, auth.ErrSignature} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "the token could not be checked"
}

// listAll reads all conversations of a user, and the time up to which their tokens are revoked.
func (g *Gateway) listAll(ctx context.Context, userID string) (all []*historyv1.Summary, revokedBefore int64, err error) {
	request := &historyv1.ListConversationsRequest{UserId: userID, Limit: 1000}
	for {
		g.metrics.Reads[metrics.ReadList].Inc()
		page, err := g.history.ListConversations(ctx, request)
		if err != nil {
			return nil, 0, fmt.Errorf("list conversations of a user: %w", err)
		}
		all, revokedBefore = append(all, page.GetConversations()...), max(revokedBefore, page.GetRevokedBeforeMs())
		if !page.GetMore() || len(page.GetConversations()) == 0 {
			return all, revokedBefore, nil
		}
		request.After = all[len(all)-1].GetConversationId()
	}
}

// resumePlan is where each conversation begins on this connection.
type resumePlan struct {
	from   map[string]*clientv1.Position // by conversation, what the client has of those that it named
	start  clientv1.Start
	former []*clientv1.Position // named, but the user is no member now, and perhaps never was
}

func planResume(request *clientv1.Connect, summaries []*historyv1.Summary) resumePlan {
	plan := resumePlan{start: request.GetStart()}
	if len(request.GetResume()) == 0 {
		return plan
	}
	plan.from = make(map[string]*clientv1.Position, len(request.GetResume()))
	member := make(map[string]struct{}, len(summaries))
	for _, s := range summaries {
		member[s.GetConversationId()] = struct{}{}
	}
	for _, p := range request.GetResume() {
		if _, is := member[p.GetConversationId()]; is {
			plan.from[p.GetConversationId()] = p
		} else {
			plan.former = append(plan.former, p)
		}
	}
	return plan
}

// base is the last seq that the client is taken to have.
func (p resumePlan) base(s *historyv1.Summary) uint64 {
	if position, named := p.from[s.GetConversationId()]; named {
		seq := position.GetSeq()
		if bugResumeOffByOne {
			seq++
		}
		return min(seq, s.GetHead())
	}
	switch p.start {
	case clientv1.Start_START_FIRST:
		return s.GetJoinedSeq() - 1
	case clientv1.Start_START_DELIVERED:
		return max(s.GetJoinedSeq()-1, min(s.GetCursor().GetDeliveredSeq(), s.GetHead()))
	default:
		return s.GetHead()
	}
}

func (c *conn) connected(summaries []*historyv1.Summary) *clientv1.Connected {
	first := summaries[:min(len(summaries), firstConversations)]
	answer := &clientv1.Connected{
		ConnectionId: c.id, UserId: c.user.id,
		HeartbeatMs:    uint32(c.gw.cfg.Heartbeat.Milliseconds()),
		TokenExpiresMs: c.expires.Load(),
		ServerTimeMs:   time.Now().UnixMilli(),
		MaxFrameBytes:  uint32(c.gw.cfg.MaxFrameBytes),
		Conversations:  make([]*clientv1.Conversation, 0, len(first)),
		More:           len(summaries) > len(first),
		Level:          uint32(c.gw.level()),
	}
	for _, s := range first {
		answer.Conversations = append(answer.Conversations, clientConversation(s))
	}
	return answer
}

// takeSeats begins to listen to all conversations. A conversation joined since the list was read comes in by its notice.
func (c *conn) takeSeats(summaries []*historyv1.Summary, plan resumePlan) {
	seats, now := make(map[string]*seat, len(summaries)), time.Now()
	seated := make([]*historyv1.Summary, 0, len(summaries))
	for _, s := range summaries {
		position, base := plan.from[s.GetConversationId()], plan.base(s)
		if position.GetSeq() > s.GetHead() {
			c.forked(nil, s.GetConversationId(), s.GetHead(), position.GetSeq()) // what was committed is in the list
			continue
		}
		if position != nil && base > 0 {
			c.gw.recorder.Subscription(gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND, now, c.gw.recorder.KeyOf(s.GetConversationId()), c.number, 0, 1, base)
		}
		seat := &seat{conn: c, from: s.GetJoinedSeq(), sent: base, acked: base, top: base, told: s.GetHead()}
		if position.GetSeq() > 0 {
			seat.top, seat.topHash = position.GetSeq(), prefix(position.GetHash())
		}
		seats[s.GetConversationId()] = seat
		seated = append(seated, s)
	}
	c.mu.Lock()
	c.seats = seats
	c.mu.Unlock()
	c.gw.hub.enter(seats, seated)

	c.mu.Lock()
	joins := c.joins
	c.joins = nil
	c.state.Store(stateOpen)
	c.mu.Unlock()
	c.nextBeat.Store(now.Add(c.gw.firstBeat()).UnixNano())
	for _, conversationID := range joins {
		c.join(conversationID)
	}
	if len(plan.former) > 0 {
		c.gw.workers.Go(func() { c.fillFormer(plan.former) })
	}
}

// join takes a seat in a conversation that the user became a member of while connected.
func (c *conn) join(conversationID string) {
	c.mu.Lock()
	if c.state.Load() != stateOpen {
		c.joins = append(c.joins, conversationID)
		c.mu.Unlock()
		return
	}
	_, seated := c.seats[conversationID]
	_, forked := c.forks[conversationID]
	_, underWay := c.joining[conversationID]
	if seated || forked || underWay || c.isGone() {
		if underWay {
			c.joining[conversationID] = true
		}
		c.mu.Unlock()
		return // a seat that is being given up asks once more itself (detached)
	}
	if c.joining == nil {
		c.joining = map[string]bool{}
	}
	c.joining[conversationID] = false
	c.mu.Unlock()
	c.gw.workers.Go(func() {
		for again := true; again; {
			if !c.gw.takeTurn(c) {
				return
			}
			c.joinNow(conversationID)
			<-c.gw.turns
			c.mu.Lock()
			again = c.joining[conversationID]
			if again {
				c.joining[conversationID] = false
			} else {
				delete(c.joining, conversationID)
			}
			c.mu.Unlock()
		}
	})
}

// takeTurn waits for one of the turns that looking up memberships is bounded by; whoever got one gives it back. It reports
// false when the connection ended first.
func (g *Gateway) takeTurn(c *conn) bool {
	select {
	case g.turns <- struct{}{}:
		return true
	case <-c.done:
		return false
	}
}

// joinNow asks history for the membership, so that a notice that is late or repeated does no harm.
func (c *conn) joinNow(conversationID string) {
	ctx, cancel := context.WithTimeout(c.gw.ctx, c.gw.cfg.HistoryTimeout)
	defer cancel()
	// The list by rising id begins right before the conversation: one row, with all that a seat needs.
	c.gw.metrics.Reads[metrics.ReadList].Inc()
	list, err := c.gw.history.ListConversations(ctx, &historyv1.ListConversationsRequest{
		UserId: c.user.id, After: conversation.Before(conversationID), Limit: 1,
	})
	if err != nil {
		if !c.isGone() {
			c.gw.log.Warn("a joined conversation could not be looked up; the client is asked to reconnect", "connection", c.id, "error", err)
			c.close(errcode.CloseUnavailable, "the history is away")
		}
		return
	}
	if len(list.GetConversations()) == 0 || list.GetConversations()[0].GetConversationId() != conversationID {
		return // left again meanwhile
	}
	summary := list.GetConversations()[0]
	base := summary.GetJoinedSeq() - 1
	s := &seat{conn: c, from: summary.GetJoinedSeq(), sent: base, acked: base, top: base, told: summary.GetHead()}
	c.mu.Lock()
	_, seated := c.seats[conversationID]
	if _, forked := c.forks[conversationID]; seated || forked || c.seats == nil {
		c.mu.Unlock()
		return
	}
	c.seats[conversationID] = s
	c.mu.Unlock()
	c.reply(&clientv1.ServerFrame{Message: &clientv1.ServerFrame_Attached{Attached: &clientv1.Attached{Conversation: clientConversation(summary)}}})
	c.gw.hub.enter(map[string]*seat{conversationID: s}, []*historyv1.Summary{summary})
	c.mu.Lock()
	gone := c.seats == nil
	c.mu.Unlock()
	if gone {
		c.gw.hub.leave(s) // the connection ended in between and could not know of this seat
	}
}
