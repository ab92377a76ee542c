package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
	"github.com/runnelhq/runnel/pkg/rpc"
)

const (
	// countTimeout and revokeTimeout divide the second within which a revoked user is disconnected. countTimeout limits
	// counting the user's connections. revokeTimeout limits the wait for the gateways to confirm that they have closed
	// them.
	countTimeout, revokeTimeout = 200 * time.Millisecond, 700 * time.Millisecond
)

// ListConnections lists connections on all gateways, by gateway and rising id.
func (s *Server) ListConnections(ctx context.Context, request *adminv1.ListConnectionsRequest) (*adminv1.ListConnectionsResponse, error) {
	question := &gatewayv1.ListConnectionsRequest{Limit: request.GetLimit()}
	if request.GetUserId() != "" {
		var err error
		if question.UserId, err = userNamed("user_id", request.GetUserId()); err != nil {
			return nil, err
		}
	}
	if request.GetLimit() > rpc.MaxItems {
		return nil, invalid(fmt.Sprintf("limit: must be at most %d", rpc.MaxItems))
	}
	if request.GetGateway() == "" {
		return s.connections(ctx, question)
	}
	if !conversation.ValidUser(request.GetGateway()) {
		return nil, invalid("gateway: is not a gateway's name")
	}
	ctx, cancel := gather(ctx, gatherTimeout)
	defer cancel()
	page, err := fleet.AskOne[gatewayv1.ListConnectionsResponse](ctx, s.Fleet, request.GetGateway(), serviceGateway, "ListConnections", question)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListConnectionsResponse{}
	collect(response, request.GetGateway(), page)
	return response, nil
}

// connections queries all gateways for connections.
func (s *Server) connections(ctx context.Context, question *gatewayv1.ListConnectionsRequest) (*adminv1.ListConnectionsResponse, error) {
	pages, missing, err := askAll[gatewayv1.ListConnectionsResponse](ctx, s, serviceGateway, "ListConnections", question)
	if err != nil {
		return nil, err
	}
	response := &adminv1.ListConnectionsResponse{Missing: missing}
	for _, page := range pages {
		collect(response, page.instance, page.said)
	}
	return response, nil
}

func collect(response *adminv1.ListConnectionsResponse, gateway string, page *gatewayv1.ListConnectionsResponse) {
	for _, c := range page.GetConnections() {
		response.Connections = append(response.Connections, &adminv1.Connection{Gateway: gateway, Connection: c})
	}
	if page.GetMore() {
		response.More = append(response.More, gateway)
	}
}

// GetConnection returns one connection with its position in each conversation.
func (s *Server) GetConnection(ctx context.Context, request *adminv1.GetConnectionRequest) (*adminv1.GetConnectionResponse, error) {
	if request.GetConnectionId() == "" {
		return nil, invalid("connection_id: must be set")
	}
	answers, missing, err := askAll[gatewayv1.GetConnectionResponse](ctx, s, serviceGateway, "GetConnection",
		&gatewayv1.GetConnectionRequest{ConnectionId: request.GetConnectionId()})
	switch {
	case err != nil:
		return nil, err
	case len(answers) > 0:
		return &adminv1.GetConnectionResponse{
			Connection: &adminv1.Connection{Gateway: answers[0].instance, Connection: answers[0].said.GetConnection()},
			Standings:  answers[0].said.GetStandings(),
		}, nil
	case len(missing) > 0:
		return nil, status.Errorf(codes.Unavailable, "no gateway that answered has this connection; without an answer: %s", names(missing))
	}
	return nil, status.Error(codes.NotFound, "no gateway has this connection")
}

// Disconnect closes one connection, or all connections of a user.
func (s *Server) Disconnect(ctx context.Context, request *adminv1.DisconnectRequest) (*adminv1.DisconnectResponse, error) {
	if (request.GetConnectionId() == "") == (request.GetUserId() == "") {
		return nil, invalid("connection_id, user_id: exactly one must be set")
	}
	user := ""
	if request.GetUserId() != "" {
		var err error
		if user, err = userNamed("user_id", request.GetUserId()); err != nil {
			return nil, err
		}
	}
	answers, missing, err := askAll[gatewayv1.DisconnectResponse](ctx, s, serviceGateway, "Disconnect", &gatewayv1.DisconnectRequest{
		ConnectionId: request.GetConnectionId(), UserId: user, StayAway: request.GetStayAway(),
	})
	if err != nil {
		return nil, err
	}
	response := &adminv1.DisconnectResponse{Missing: missing}
	for _, answer := range answers {
		response.Closed += answer.said.GetClosed()
	}
	s.acted(ctx, "disconnect", "connection", request.GetConnectionId(), "user", user, "stay_away", request.GetStayAway(),
		"closed", response.GetClosed(), "missing", names(missing))
	if response.GetClosed() == 0 && request.GetConnectionId() != "" && len(missing) == 0 {
		return nil, status.Error(codes.NotFound, "no gateway has this connection")
	}
	return response, nil
}

// GetUser returns a user's sessions and revocation.
func (s *Server) GetUser(ctx context.Context, request *adminv1.GetUserRequest) (*adminv1.GetUserResponse, error) {
	user, err := userNamed("user_id", request.GetUserId())
	if err != nil {
		return nil, err
	}
	connections, err := s.connections(ctx, &gatewayv1.ListConnectionsRequest{UserId: user, Limit: rpc.MaxItems})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	revoked, err := s.History.GetRevocations(ctx, &historyv1.GetRevocationsRequest{UserId: user})
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetUserResponse{Connections: connections.GetConnections(), Missing: connections.GetMissing()}
	for _, revocation := range revoked.GetRevocations() {
		response.RevokedBeforeMs = max(response.GetRevokedBeforeMs(), revocation.GetBeforeMs())
	}
	return response, nil
}

// RevokeUser revokes a user's tokens and closes their connections. It first writes to the store: from then on old tokens
// are refused. Then it sends a notice, on which gateways close connections. It also calls the gateways to get a
// confirmation; gateways that do not confirm are listed as missing.
func (s *Server) RevokeUser(ctx context.Context, request *adminv1.RevokeUserRequest) (*adminv1.RevokeUserResponse, error) {
	user, err := userNamed("user_id", request.GetUserId())
	if err != nil {
		return nil, err
	}
	storing, cancel := context.WithTimeout(ctx, callTimeout)
	revoked, err := s.History.RevokeUser(storing, &historyv1.RevokeUserRequest{UserId: user})
	cancel()
	if err != nil {
		return nil, err
	}
	response := &adminv1.RevokeUserResponse{BeforeMs: revoked.GetBeforeMs()}
	// Count before the notice, because closed connections cannot be counted afterwards. Instances that do not answer in
	// time are asked again.
	counting, cancel := gather(ctx, countTimeout)
	before, _, _ := askAll[gatewayv1.ListConnectionsResponse](counting, s, serviceGateway, "ListConnections",
		&gatewayv1.ListConnectionsRequest{UserId: user, Limit: rpc.MaxItems})
	cancel()
	notice, err := (&brokerv1.Revoked{UserId: user, BeforeMs: revoked.GetBeforeMs()}).MarshalVT()
	if err != nil {
		return nil, fmt.Errorf("encode the notice: %w", err)
	}
	s.notify(ctx, broker.RevokedSubject, notice)
	closing, cancel := gather(ctx, revokeTimeout)
	after, missing, err := askAll[gatewayv1.DisconnectResponse](closing, s, serviceGateway, "Disconnect",
		&gatewayv1.DisconnectRequest{UserId: user, StayAway: true})
	cancel()
	for _, gateway := range after {
		closed := gateway.said.GetClosed()
		for _, counted := range before {
			if counted.instance == gateway.instance {
				closed = max(closed, uint32(len(counted.said.GetConnections())))
			}
		}
		response.Closed += closed
	}
	response.Missing = missing
	s.acted(ctx, "revoke", "user", user, "before_ms", response.GetBeforeMs(), "closed", response.GetClosed(), "missing", names(missing))
	if err != nil {
		return nil, status.Error(codes.Unavailable, "the tokens are revoked, but gateways cannot be notified over NATS: they read the revocation from the store within seconds")
	}
	return response, nil
}

// names lists the missing instances as readable text.
func names(missing []*adminv1.Missing) string {
	all := make([]string, len(missing))
	for i, m := range missing {
		all[i] = m.GetInstance()
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
