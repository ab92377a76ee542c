// Package operator answers operators' queries about a gateway: its connections, the history of an event, its state of a
// conversation; over gRPC, as JSON and as metrics. It changes nothing, except that it closes connections on request.
package operator

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/room"
	"github.com/runnelhq/runnel/services/gateway/session"
)

// Deps are the sources of the answers. All fields are required.
type Deps struct {
	Gateway  string // the gateway's id
	Sessions *session.Sessions
	Rooms    *room.Hub
	Recorder *flight.Recorder
	Closed   *flight.ClosedLog
	Metrics  *metrics.Metrics
	// MaxConnections is the gateway's limit of connections.
	MaxConnections int
	// Draining reports whether the gateway is being stopped.
	Draining func() bool
	// PendingCommands returns the number of commands that wait for an outcome.
	PendingCommands func() int
	// Level returns the installation's protocol level as the gateway knows it.
	Level func() conversation.Level
}

// Server is the gRPC service of a gateway.
type Server struct {
	gatewayv1.UnimplementedGatewayServiceServer
	deps Deps
}

// New makes a server.
func New(deps Deps) *Server { return &Server{deps: deps} }

// Register adds the service and its policy to a server.
func (s *Server) Register(server rpc.Registrar) {
	server.Allow(Policy())
	gatewayv1.RegisterGatewayServiceServer(server, s)
}

const (
	defaultList = 100
	// maxStandings limits the conversations that are listed for one connection, and the connections listed for one
	// conversation.
	maxStandings = 1000
)

// ListConnections lists connections by rising id.
func (s *Server) ListConnections(_ context.Context, request *gatewayv1.ListConnectionsRequest) (*gatewayv1.ListConnectionsResponse, error) {
	limit := int(request.GetLimit())
	if limit == 0 {
		limit = defaultList
	}
	if limit > rpc.MaxItems {
		return nil, status.Errorf(codes.InvalidArgument, "limit: must be at most %d", rpc.MaxItems)
	}
	if user := request.GetUserId(); user != "" && !conversation.ValidUser(user) {
		return nil, status.Error(codes.InvalidArgument, "user_id: is not a user id")
	}
	page, more := s.deps.Sessions.ListPage(ids.User(request.GetUserId()), ids.Connection(request.GetAfter()), limit)
	answer := &gatewayv1.ListConnectionsResponse{More: more}
	for _, described := range page {
		answer.Connections = append(answer.Connections, described.Connection)
	}
	return answer, nil
}

var errNoConnection = status.Error(codes.NotFound, "no such connection on this gateway")

// GetConnection returns one connection with its position in each conversation.
func (s *Server) GetConnection(_ context.Context, request *gatewayv1.GetConnectionRequest) (*gatewayv1.GetConnectionResponse, error) {
	described, found := s.deps.Sessions.Get(ids.Connection(request.GetConnectionId()))
	if !found {
		return nil, errNoConnection
	}
	standings := described.Standings()
	return &gatewayv1.GetConnectionResponse{Connection: described.Connection, Standings: standings[:min(len(standings), maxStandings)]}, nil
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
	var sessions []session.Described
	if request.GetUserId() != "" {
		sessions = s.deps.Sessions.List(ids.User(request.GetUserId()))
	} else {
		described, found := s.deps.Sessions.Get(ids.Connection(request.GetConnectionId()))
		if !found {
			return nil, errNoConnection
		}
		sessions = append(sessions, described)
	}
	closed := uint32(0)
	for _, described := range sessions {
		if described.Close(code, "closed by an operator") { // a connection that is already closing is not counted
			closed++
		}
	}
	return &gatewayv1.DisconnectResponse{Closed: closed}, nil
}
