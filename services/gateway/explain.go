package gateway

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
)

// Bounds of an explanation.
const (
	maxTrails = 100
	maxSteps  = 100
)

// Explain tells what this gateway remembers of one event and one user. It looks through a few shards of the recorder, which
// takes about a millisecond.
func (s *Server) Explain(_ context.Context, request *gatewayv1.ExplainRequest) (*gatewayv1.ExplainResponse, error) {
	switch {
	case !conversation.ValidUser(request.GetUserId()):
		return nil, status.Error(codes.InvalidArgument, "user_id: is not a user id")
	case !conversation.ValidID(request.GetConversationId()):
		return nil, status.Error(codes.InvalidArgument, "conversation_id: is not a conversation id")
	case request.GetSeq() == 0 || request.GetSeq() >= maxSeq:
		return nil, status.Error(codes.InvalidArgument, "seq: is not the number of an event")
	}
	g := s.gw
	answer := &gatewayv1.ExplainResponse{Gateway: g.id, StartedMs: g.recorder.started.UnixMilli()}
	// Those that live first: one that ends in between is then found twice rather than never.
	subjects := g.living(request.GetUserId(), request.GetConversationId())
	gone, connectionsSince := g.endings.of(request.GetUserId())
	for _, e := range gone {
		subjects = slices.DeleteFunc(subjects, func(one subject) bool { return one.number == e.number })
		subjects = append(subjects, e.subject(request.GetConversationId()))
	}
	slices.SortFunc(subjects, func(a, b subject) int { return cmp.Compare(a.trail.GetOpenedMs(), b.trail.GetOpenedMs()) })
	answer.ConnectionsSinceMs = connectionsSince.UnixMilli()

	key := g.recorder.key(request.GetConversationId())
	since := g.recorder.explainRoom(answer, key, request.GetSeq())
	for _, one := range subjects[max(0, len(subjects)-maxTrails):] {
		since = max(since, g.recorder.explainConn(one.trail, one.number, key, request.GetSeq()))
		answer.Trails = append(answer.Trails, one.trail)
	}
	answer.RemembersSinceMs = time.Unix(0, since).UnixMilli()
	return answer, nil
}

// subject is a connection that an explanation is about.
type subject struct {
	number uint32
	trail  *gatewayv1.Trail
}

// living gives the connections of a user that are there now.
func (g *Gateway) living(userID, conversationID string) []subject {
	conns := g.connectionsOf(userID)
	subjects := make([]subject, 0, len(conns))
	for _, c := range conns {
		c.mu.Lock()
		seat := c.seats[conversationID]
		c.mu.Unlock()
		trail := &gatewayv1.Trail{ConnectionId: c.id, DeviceId: c.device, OpenedMs: c.since.UnixMilli()}
		if seat != nil {
			if r := seat.room.Load(); r != nil {
				r.mu.Lock()
				trail.Standing = seat.standing(r)
				r.mu.Unlock()
			}
		}
		subjects = append(subjects, subject{c.number, trail})
	}
	return subjects
}

// connectionsOf gives the connections of a user, those that are being let in among them.
func (g *Gateway) connectionsOf(userID string) []*conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	u := g.users[userID]
	if u == nil {
		return nil
	}
	conns := make([]*conn, 0, len(u.conns))
	for c := range u.conns {
		conns = append(conns, c)
	}
	slices.SortFunc(conns, func(a, b *conn) int { return strings.Compare(a.id, b.id) })
	return conns
}

// closeAbnormal stands for connections that were lost without a word (RFC 6455, section 7.1.5).
const closeAbnormal = 1006

func (e *ended) subject(conversationID string) subject {
	trail := &gatewayv1.Trail{
		ConnectionId: e.id, DeviceId: e.device, OpenedMs: e.opened.UnixMilli(), ClosedMs: e.closed.UnixMilli(),
		CloseCode: uint32(cmp.Or(e.code, closeAbnormal)), CloseReason: closeReason(e.code),
	}
	for _, s := range e.standings {
		if s.GetConversationId() == conversationID {
			trail.Standing = s
		}
	}
	return subject{e.number, trail}
}

// closeReason is the name of a close code in the catalogue. Those below it are of WebSocket itself: clients close with them.
func closeReason(code errcode.CloseCode) string {
	switch {
	case code == 0 || code == closeAbnormal:
		return "lost"
	case code < errcode.CloseGoingAway:
		return "client"
	default:
		return code.String()
	}
}

// explainRoom adds what happened to an event in a room. It gives the time since which all is remembered.
func (r *recorder) explainRoom(answer *gatewayv1.ExplainResponse, key roomKey, seq uint64) (since int64) {
	if !r.on {
		return time.Now().UnixNano()
	}
	since = r.ofRoom(key).look(func(s *step) {
		switch s.kind() {
		case gatewayv1.StepKind_STEP_KIND_ROUTED, gatewayv1.StepKind_STEP_KIND_MISSED, gatewayv1.StepKind_STEP_KIND_GAP_FILLED:
			if s.isOf(key) && s.covers(seq) && len(answer.GetSteps()) < maxSteps {
				answer.Steps = append(answer.Steps, s.explain())
			}
		case stepCommitted:
			if s.isOf(key) && s.covers(seq) {
				answer.Worker, answer.CommittedNs = r.workers.name(s.conn), s.at
			}
		default: // of connections
		}
	})
	sortSteps(answer.GetSteps())
	return max(since, r.started.UnixNano())
}

// explainConn adds what happened to an event on a connection.
func (r *recorder) explainConn(trail *gatewayv1.Trail, number uint32, key roomKey, seq uint64) (since int64) {
	if !r.on {
		return time.Now().UnixNano()
	}
	var queued, writes []step
	since = r.ofConn(number).look(func(s *step) {
		if s.conn != number {
			return
		}
		switch kind := s.kind(); kind {
		case gatewayv1.StepKind_STEP_KIND_WRITTEN:
			writes = append(writes, *s)
		case gatewayv1.StepKind_STEP_KIND_QUEUED, gatewayv1.StepKind_STEP_KIND_CAUGHT_UP, gatewayv1.StepKind_STEP_KIND_HIDDEN,
			gatewayv1.StepKind_STEP_KIND_ACKNOWLEDGED, gatewayv1.StepKind_STEP_KIND_RETRIED, gatewayv1.StepKind_STEP_KIND_RESUMED_BEYOND:
			if s.room == uint32(key) && s.covers(seq) && len(trail.GetSteps()) < maxSteps {
				trail.Steps = append(trail.Steps, s.explain())
				if s.mark != 0 {
					queued = append(queued, *s)
				}
			}
		default: // of a room
		}
	})
	for i := range queued {
		q := &queued[i]
		for j := range writes {
			// The first write that went as far as this mark. It may have been noted before what it wrote was.
			if w := &writes[j]; int32(w.mark-q.mark) >= 0 {
				w.last, w.what = q.last, q.what&^(1<<kindBits-1)|uint32(gatewayv1.StepKind_STEP_KIND_WRITTEN)
				if len(trail.GetSteps()) < maxSteps {
					trail.Steps = append(trail.Steps, w.explain())
				}
				break
			}
		}
	}
	sortSteps(trail.GetSteps())
	return max(since, r.started.UnixNano())
}

func (s *step) explain() *gatewayv1.Step {
	return &gatewayv1.Step{Kind: s.kind(), TimeNs: s.at, First: s.first(), Last: s.last}
}

// sortSteps puts steps into the order in which they happened. What is noted with the same time keeps its order.
func sortSteps(steps []*gatewayv1.Step) {
	slices.SortStableFunc(steps, func(a, b *gatewayv1.Step) int { return cmp.Compare(a.GetTimeNs(), b.GetTimeNs()) })
}
