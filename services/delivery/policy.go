package delivery

import (
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Policy defines which roles may call DeliveryService.
func Policy() rpc.Policy {
	var (
		senders = []rpc.Role{rpc.RoleService, rpc.RoleAdmin}
		askers  = []rpc.Role{rpc.RoleDelivery, rpc.RoleAdmin}
	)
	return rpc.For(&deliveryv1.DeliveryService_ServiceDesc, map[string][]rpc.Role{
		"Submit":         senders,
		"ListPartitions": askers,
		"Explain":        askers,
	})
}
