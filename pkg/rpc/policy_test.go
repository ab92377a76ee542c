package rpc_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
	"github.com/runnelhq/runnel/pkg/telemetry"
)

// registerHistory registers a history service. Workers may call all its methods; gateways may call Heads and Read.
func registerHistory(server rpc.Registrar, service historyv1.HistoryServiceServer) {
	desc, methods := &historyv1.HistoryService_ServiceDesc, map[string][]rpc.Role{}
	for _, method := range desc.Methods {
		methods[method.MethodName] = []rpc.Role{rpc.RoleDelivery}
	}
	methods["Heads"], methods["Read"] = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery}, []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery, rpc.RoleAdmin}
	server.Allow(rpc.For(desc, methods))
	historyv1.RegisterHistoryServiceServer(server, service)
}

// registerAdmin registers an admin service for operators.
func registerAdmin(server rpc.Registrar, service adminv1.AdminServiceServer) {
	desc, methods := &adminv1.AdminService_ServiceDesc, map[string][]rpc.Role{}
	for _, method := range desc.Methods {
		methods[method.MethodName] = []rpc.Role{rpc.RoleAdmin}
	}
	server.Allow(rpc.For(desc, methods))
	adminv1.RegisterAdminServiceServer(server, service)
}

// A server with a method that no role may call does not start, because the policy of the method was forgotten.
func TestAMethodWithoutAPolicyIsNotServed(t *testing.T) {
	for name, allow := range map[string]func(*rpc.Server){
		"no policy at all": func(*rpc.Server) {},
		"one method forgotten": func(s *rpc.Server) {
			methods := map[string][]rpc.Role{}
			for _, method := range historyv1.HistoryService_ServiceDesc.Methods[1:] {
				methods[method.MethodName] = []rpc.Role{rpc.RoleDelivery}
			}
			s.Allow(rpc.For(&historyv1.HistoryService_ServiceDesc, methods))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server, err := rpc.NewServer(rpc.ServerConfig{Listen: "127.0.0.1:0"}, telemetry.Discard())
			require.NoError(t, err)
			allow(server)
			historyv1.RegisterHistoryServiceServer(server, historyv1.UnimplementedHistoryServiceServer{})
			require.ErrorContains(t, server.Run(t.Context()), "has no policy")
		})
	}
}

// Calls within a process need no policy.
var _ rpc.Registrar = (*rpc.Inproc)(nil)
