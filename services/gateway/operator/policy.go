package operator

import (
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Policy lists who may call each method of GatewayService.
func Policy() rpc.Policy {
	askers := []rpc.Role{rpc.RoleDelivery, rpc.RoleAdmin}
	return rpc.For(&gatewayv1.GatewayService_ServiceDesc, map[string][]rpc.Role{
		"ListConnections": askers,
		"GetConnection":   askers,
		"Disconnect":      askers,
		"Explain":         askers,
		"GetGateway":      askers,
	})
}
