package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/fleet"
)

// GetLevel returns the installation's protocol level and the highest level that each live part knows.
func (s *Server) GetLevel(ctx context.Context, _ *adminv1.GetLevelRequest) (*adminv1.GetLevelResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	parts, missing, err := s.levels(ctx)
	if err != nil {
		return nil, err
	}
	installation, err := s.History.GetInstallation(ctx, &historyv1.GetInstallationRequest{})
	if err != nil {
		return nil, err
	}
	return &adminv1.GetLevelResponse{Level: installation.GetLevel(), Parts: parts, Missing: missing}, nil
}

// RaiseLevel raises the installation's protocol level, unless a live part does not know the new level or did not answer.
// The history service refuses a level that it does not know.
func (s *Server) RaiseLevel(ctx context.Context, request *adminv1.RaiseLevelRequest) (*adminv1.RaiseLevelResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	level := conversation.Level(request.GetLevel())
	if level < conversation.MinLevel {
		return nil, invalid(fmt.Sprintf("level: must be at least %d", conversation.MinLevel))
	}
	parts, missing, err := s.levels(ctx)
	if err != nil {
		return nil, err
	}
	if err := mayRaise(level, parts, missing); err != nil {
		return nil, err
	}
	raised, err := s.History.RaiseLevel(ctx, &historyv1.RaiseLevelRequest{Level: uint32(level)})
	if err != nil {
		return nil, err
	}
	s.acted(ctx, "raise the protocol level", "level", raised.GetLevel())
	return &adminv1.RaiseLevelResponse{Level: raised.GetLevel()}, nil
}

// mayRaise returns why the level cannot be raised; nil if it can.
func mayRaise(level conversation.Level, parts []*adminv1.PartLevel, missing []*adminv1.Missing) error {
	var behind []string
	silent := make([]string, 0, len(missing))
	for _, part := range parts {
		if conversation.Level(part.GetLevel()) < level {
			behind = append(behind, fmt.Sprintf("%s %s (level %d)", part.GetService(), part.GetInstance(), part.GetLevel()))
		}
	}
	for _, m := range missing {
		silent = append(silent, fmt.Sprintf("%s %s (%s)", m.GetService(), m.GetInstance(), m.GetReason()))
	}
	switch {
	case len(behind) > 0:
		return status.Errorf(codes.FailedPrecondition, "level %d is not known to %s: replace them with a version that knows it, then raise the level",
			level, strings.Join(behind, ", "))
	case len(silent) > 0:
		return status.Errorf(codes.FailedPrecondition, "no answer from %s: raise the level when they answer or have stopped", strings.Join(silent, ", "))
	}
	return nil
}

// levels returns the levels that live gateways and workers know. It queries all instances to learn which exist; their
// signs of life state the level. An instance that has not sent a sign of life yet is listed as missing.
func (s *Server) levels(ctx context.Context) ([]*adminv1.PartLevel, []*adminv1.Missing, error) {
	gateways, missing, err := askAll[gatewayv1.GetGatewayResponse](ctx, s, serviceGateway, "GetGateway", &gatewayv1.GetGatewayRequest{})
	if err != nil {
		return nil, nil, err
	}
	workers, silent, err := askAll[deliveryv1.ListPartitionsResponse](ctx, s, serviceDelivery, "ListPartitions", &deliveryv1.ListPartitionsRequest{})
	if err != nil {
		return nil, nil, err
	}
	leases, err := s.History.ListLeases(ctx, &historyv1.ListLeasesRequest{})
	if err != nil {
		return nil, nil, err
	}
	missing = append(missing, overview(0, leases, workers, silent).GetMissing()...)
	var parts []*adminv1.PartLevel
	for service, answered := range map[string][]string{serviceGateway: instances(gateways), serviceDelivery: instances(workers)} {
		known := map[string]fleet.Member{}
		for _, member := range s.Fleet.Members(service) {
			known[member.Instance] = member
		}
		for _, instance := range answered {
			if member, heard := known[instance]; heard {
				parts = append(parts, &adminv1.PartLevel{Instance: instance, Service: service, Level: uint32(member.Level), Version: member.Version})
			} else {
				missing = append(missing, &adminv1.Missing{Instance: instance, Service: service, Reason: "answers, but has not reported yet which level it knows"})
			}
		}
	}
	slices.SortFunc(parts, func(a, b *adminv1.PartLevel) int {
		return strings.Compare(a.GetService()+" "+a.GetInstance(), b.GetService()+" "+b.GetInstance())
	})
	slices.SortFunc(missing, func(a, b *adminv1.Missing) int {
		return strings.Compare(a.GetService()+" "+a.GetInstance(), b.GetService()+" "+b.GetInstance())
	})
	return parts, missing, nil
}

func instances[T any](answers []from[T]) []string {
	list := make([]string, len(answers))
	for i, answer := range answers {
		list[i] = answer.instance
	}
	return list
}
