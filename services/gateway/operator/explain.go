package operator

import (
	"cmp"
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/protocol"

	"github.com/runnelhq/runnel/services/gateway/flight"
)

// maxTrails bounds the connections of one explanation.
const maxTrails = 100

// Explain returns what this gateway remembers of one event and one user. It searches a few shards of the recorder, which takes
// about a millisecond.
func (s *Server) Explain(_ context.Context, request *gatewayv1.ExplainRequest) (*gatewayv1.ExplainResponse, error) {
	switch {
	case !conversation.ValidUser(request.GetUserId()):
		return nil, status.Error(codes.InvalidArgument, "user_id: is not a user id")
	case !conversation.ValidID(request.GetConversationId()):
		return nil, status.Error(codes.InvalidArgument, "conversation_id: is not a conversation id")
	case request.GetSeq() == 0 || request.GetSeq() > protocol.MaxSeq:
		return nil, status.Error(codes.InvalidArgument, "seq: is not the number of an event")
	}
	recorder := s.deps.Recorder
	answer := &gatewayv1.ExplainResponse{Gateway: s.deps.Gateway, StartedMs: recorder.Started().UnixMilli()}
	// Live connections are listed before ended ones: a connection that ends in between is then found twice instead of not
	// at all.
	subjects := s.living(ids.User(request.GetUserId()), ids.Conversation(request.GetConversationId()))
	gone, connectionsSince := s.deps.Closed.Of(ids.User(request.GetUserId()))
	for _, closed := range gone {
		subjects = slices.DeleteFunc(subjects, func(one subject) bool { return one.number == closed.Number })
		subjects = append(subjects, closedSubject(&closed, ids.Conversation(request.GetConversationId())))
	}
	slices.SortFunc(subjects, func(a, b subject) int { return cmp.Compare(a.trail.GetOpenedMs(), b.trail.GetOpenedMs()) })
	answer.ConnectionsSinceMs = connectionsSince.UnixMilli()

	key := recorder.KeyOf(ids.Conversation(request.GetConversationId()))
	since := recorder.ExplainRoom(answer, key, ids.Seq(request.GetSeq()))
	for _, one := range subjects[max(0, len(subjects)-maxTrails):] {
		since = max(since, recorder.ExplainConnection(one.trail, one.number, key, ids.Seq(request.GetSeq())))
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

// living returns the present connections of a user.
func (s *Server) living(userID ids.User, conversationID ids.Conversation) []subject {
	sessions := s.deps.Sessions.List(userID)
	subjects := make([]subject, 0, len(sessions))
	for _, described := range sessions {
		subjects = append(subjects, subject{described.Number, &gatewayv1.Trail{
			ConnectionId: described.GetConnectionId(), DeviceId: described.GetDeviceId(), OpenedMs: described.GetSinceMs(),
			Standing: described.Standing(conversationID),
		}})
	}
	return subjects
}

// closeAbnormal stands for connections that were lost without a close frame (RFC 6455, section 7.1.5).
const closeAbnormal = 1006

// closedSubject is a connection that has ended.
func closedSubject(e *flight.Closed, conversationID ids.Conversation) subject {
	trail := &gatewayv1.Trail{
		ConnectionId: string(e.ConnectionID), DeviceId: string(e.Device), OpenedMs: e.OpenedAt.UnixMilli(), ClosedMs: e.ClosedAt.UnixMilli(),
		CloseCode: uint32(cmp.Or(e.Code, closeAbnormal)), CloseReason: closeReason(e.Code),
	}
	for _, s := range e.Standings {
		if ids.Conversation(s.GetConversationId()) == conversationID {
			trail.Standing = s
		}
	}
	return subject{e.Number, trail}
}

// closeReason returns the name of a close code in the catalogue. Lower codes are defined by WebSocket itself; clients
// close with them.
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
