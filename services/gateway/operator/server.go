package gateway

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
)

// Server answers operators about the gateway's connections.
type Server struct {
	gatewayv1.UnimplementedGatewayServiceServer
	gw *Gateway
}

// Server gives the gRPC service of this gateway.
func (g *Gateway) Server() *Server { return &Server{gw: g} }

// ListConnections gives connections by rising id.
func (s *Server) ListConnections(_ context.Context, request *gatewayv1.ListConnectionsRequest) (*gatewayv1.ListConnectionsResponse, error) {
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = 100
	}
	if limit > 1000 {
		return nil, status.Error(codes.InvalidArgument, "limit: must be at most 1000")
	}
	if user := request.GetUserId(); user != "" && !conversation.ValidUser(user) {
		return nil, status.Error(codes.InvalidArgument, "user_id: is not a user id")
	}
	conns := slices.DeleteFunc(s.gw.connections(), func(c *conn) bool {
		return c.id <= request.GetAfter() || (request.GetUserId() != "" && c.userID() != request.GetUserId())
	})
	slices.SortFunc(conns, func(a, b *conn) int { return strings.Compare(a.id, b.id) })
	answer := &gatewayv1.ListConnectionsResponse{More: len(conns) > limit}
	for _, c := range conns[:min(limit, len(conns))] {
		answer.Connections = append(answer.Connections, c.describe())
	}
	return answer, nil
}

// GetConnection gives one connection with where it stands in its conversations.
func (s *Server) GetConnection(_ context.Context, request *gatewayv1.GetConnectionRequest) (*gatewayv1.GetConnectionResponse, error) {
	c := s.gw.connection(request.GetConnectionId())
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such connection on this gateway")
	}
	return &gatewayv1.GetConnectionResponse{Connection: c.describe(), Standings: c.standings()}, nil
}

// Disconnect closes connections by id or by user.
func (s *Server) Disconnect(_ context.Context, request *gatewayv1.DisconnectRequest) (*gatewayv1.DisconnectResponse, error) {
	if (request.GetConnectionId() == "") == (request.GetUserId() == "") {
		return nil, status.Error(codes.InvalidArgument, "connection_id, user_id: exactly one must be set")
	}
	code := errcode.CloseDisconnected
	if request.GetStayAway() {
		code = errcode.CloseStayAway
	}
	closed, found := uint32(0), false
	for _, c := range s.gw.connections() {
		if c.id == request.GetConnectionId() || (request.GetUserId() != "" && c.userID() == request.GetUserId()) {
			found = true
			if c.close(code, "closed by an operator") { // not one that is closing already
				closed++
			}
		}
	}
	if !found && request.GetConnectionId() != "" {
		return nil, status.Error(codes.NotFound, "no such connection on this gateway")
	}
	return &gatewayv1.DisconnectResponse{Closed: closed}, nil
}

func (g *Gateway) connection(id string) *conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conns[id]
}

// userID is the authenticated user; empty before that.
func (c *conn) userID() string {
	if c.state.Load() != stateOpen {
		return ""
	}
	return c.user.id
}

func (c *conn) describe() *gatewayv1.Connection {
	described := &gatewayv1.Connection{
		ConnectionId: c.id, Remote: c.remote, Protocol: c.codec.Subprotocol(), SinceMs: c.since.UnixMilli(),
		TokenExpiresMs: c.expires.Load(), UserId: c.userID(),
	}
	if described.GetUserId() != "" {
		described.DeviceId, described.Client = c.device, c.client
	}
	c.sendMu.Lock()
	described.QueuedBytes = uint64(c.out.queued)
	c.sendMu.Unlock()
	c.mu.Lock()
	described.Conversations = uint32(len(c.seats))
	c.mu.Unlock()
	return described
}

const maxStandings = 1000

func (c *conn) standings() []*gatewayv1.Standing {
	c.mu.Lock()
	seats := make([]*seat, 0, len(c.seats))
	for _, s := range c.seats {
		seats = append(seats, s)
	}
	c.mu.Unlock()
	standings := make([]*gatewayv1.Standing, 0, len(seats))
	for _, s := range seats {
		r := s.room.Load()
		if r == nil {
			continue
		}
		r.mu.Lock()
		standings = append(standings, s.standing(r))
		r.mu.Unlock()
	}
	slices.SortFunc(standings, func(a, b *gatewayv1.Standing) int {
		return strings.Compare(a.GetConversationId(), b.GetConversationId())
	})
	return standings[:min(len(standings), maxStandings)]
}

// leftStandings are the conversations in which a connection that ends had not acknowledged everything.
func leftStandings(seats map[string]*seat) (left []*gatewayv1.Standing) {
	for _, s := range seats {
		r := s.room.Load()
		if r == nil {
			continue
		}
		r.mu.Lock()
		if s.acked < r.head {
			left = append(left, s.standing(r))
		}
		r.mu.Unlock()
		if len(left) == flight.MaxClosedStandings {
			break
		}
	}
	return left
}
