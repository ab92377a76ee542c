package operator

import (
	"testing"

	"github.com/stretchr/testify/require"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Every method of the service is in the policy, and the policy contains no other.
func TestThePolicyIsComplete(t *testing.T) {
	desc, policy := &gatewayv1.GatewayService_ServiceDesc, Policy()
	require.Len(t, policy, len(desc.Methods))
	for _, method := range desc.Methods {
		require.NotEmpty(t, policy["/"+desc.ServiceName+"/"+method.MethodName], method.MethodName)
	}
}

// These rules are repeated here because they must not be changed by accident.
func TestThePolicyOfWhatMatters(t *testing.T) {
	for method, roles := range map[string][]rpc.Role{
		"Disconnect": {rpc.RoleDelivery, rpc.RoleAdmin},
	} {
		require.Equal(t, roles, Policy()["/"+gatewayv1.GatewayService_ServiceDesc.ServiceName+"/"+method], method)
	}
}
