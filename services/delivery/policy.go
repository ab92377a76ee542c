package delivery

import (
	"slices"

	"google.golang.org/grpc"

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

// questions lists the methods that other workers may call over NATS on behalf of an operator. It contains only methods
// that change nothing.
func questions() *grpc.ServiceDesc {
	desc := deliveryv1.DeliveryService_ServiceDesc
	desc.Methods = slices.DeleteFunc(slices.Clone(desc.Methods), func(m grpc.MethodDesc) bool { return m.MethodName == "Submit" })
	return &desc
}
