package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Every method of the service is in the policy, and the policy contains no other.
func TestThePolicyIsComplete(t *testing.T) {
	desc, policy := &deliveryv1.DeliveryService_ServiceDesc, Policy()
	require.Len(t, policy, len(desc.Methods))
	for _, method := range desc.Methods {
		require.NotEmpty(t, policy["/"+desc.ServiceName+"/"+method.MethodName], method.MethodName)
	}
}

// These rules are repeated here because they must not be changed by accident.
func TestThePolicyOfWhatMatters(t *testing.T) {
	for method, roles := range map[string][]rpc.Role{
		"Submit": {rpc.RoleService, rpc.RoleAdmin},
	} {
		require.Equal(t, roles, Policy()["/"+deliveryv1.DeliveryService_ServiceDesc.ServiceName+"/"+method], method)
	}
}
