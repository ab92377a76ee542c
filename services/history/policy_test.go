package history

import (
	"testing"

	"github.com/stretchr/testify/require"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Every method of the service is in the policy, and the policy contains no other.
func TestThePolicyIsComplete(t *testing.T) {
	desc, policy := &historyv1.HistoryService_ServiceDesc, Policy()
	require.Len(t, policy, len(desc.Methods))
	for _, method := range desc.Methods {
		require.NotEmpty(t, policy["/"+desc.ServiceName+"/"+method.MethodName], method.MethodName)
	}
}

// These rules are repeated here because they must not be changed by accident.
func TestThePolicyOfWhatMatters(t *testing.T) {
	for method, roles := range map[string][]rpc.Role{
		"Append":     {rpc.RoleDelivery},
		"Lease":      {rpc.RoleDelivery},
		"MarkBackup": {rpc.RoleDelivery},
		"RaiseLevel": {rpc.RoleDelivery},
		"ReadFeed":   {rpc.RoleDelivery, rpc.RoleService},
	} {
		require.Equal(t, roles, Policy()["/"+historyv1.HistoryService_ServiceDesc.ServiceName+"/"+method], method)
	}
}
