package rpc

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	_ "google.golang.org/grpc/health/grpc_health_v1"
	_ "google.golang.org/grpc/reflection/grpc_reflection_v1"
	_ "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	_ "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	_ "github.com/runnelhq/runnel/proto/runnel/client/v1"
	_ "github.com/runnelhq/runnel/proto/runnel/delivery/v1"
	_ "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	_ "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Every method of every service has a place in the table, and the table has no other.
func TestThePolicyIsComplete(t *testing.T) {
	served := map[string]bool{}
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		// What else is linked in (OTLP, for one) is not served by us.
		if pkg := string(file.Package()); !slices.Contains([]string{"grpc.health.v1", "grpc.reflection.v1", "grpc.reflection.v1alpha"}, pkg) &&
			file.Package().Parent().Parent() != "runnel" {
			return true
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				served["/"+string(service.FullName())+"/"+string(service.Methods().Get(j).Name())] = true
			}
		}
		return true
	})
	require.Greater(t, len(served), 40)
	for method := range served {
		require.NotEmpty(t, policy[method], "%s has no entry in policy.go: nobody may call it", method)
	}
	for method := range policy {
		require.True(t, served[method], "policy.go names %s, which does not exist", method)
	}
}

// Who writes, and who speaks for users, is too important to be changed by the way.
func TestThePolicyOfWhatMatters(t *testing.T) {
	for method, roles := range map[string][]Role{
		"/runnel.history.v1.HistoryService/Append":   {RoleDelivery},
		"/runnel.history.v1.HistoryService/Lease":    {RoleDelivery},
		"/runnel.delivery.v1.DeliveryService/Submit": {RoleService, RoleAdmin},
		"/runnel.admin.v1.AdminService/RevokeUser":   {RoleAdmin},
		// What destroys content or lets streams be purged is ordered by operators, and carried out by workers alone.
		"/runnel.admin.v1.AdminService/Erase":          {RoleAdmin},
		"/runnel.admin.v1.AdminService/MarkBackup":     {RoleAdmin},
		"/runnel.admin.v1.AdminService/RaiseLevel":     {RoleAdmin},
		"/runnel.history.v1.HistoryService/MarkBackup": {RoleDelivery},
		"/runnel.history.v1.HistoryService/RaiseLevel": {RoleDelivery},
		// The feed is everything that everybody says.
		"/runnel.history.v1.HistoryService/ReadFeed": {RoleDelivery, RoleService},
	} {
		require.Equal(t, roles, policy[method], method)
	}
}
