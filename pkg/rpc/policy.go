package rpc

import (
	"strings"

	"google.golang.org/grpc"
)

// Role is the role of a process towards other processes. A DNS name in its certificate proves it.
type Role string

// The roles. A certificate may contain several.
const (
	RoleGateway  Role = "runnel-gateway"
	RoleDelivery Role = "runnel-delivery"
	RoleHistory  Role = "runnel-history"
	// RoleAdmin is the role of operators and their tools.
	RoleAdmin Role = "runnel-admin"
	// RoleService is the role of internal services that send on behalf of users, or read committed events.
	RoleService Role = "runnel-service"

	// RoleAny stands for every caller with a valid certificate.
	RoleAny Role = "*"
)

// Policy defines which roles may call which methods. A method without an entry cannot be called, and a server that serves such a
// method does not start. Each service has its own policy, next to its implementation.
type Policy map[string][]Role

// For returns the policy of the methods of one service, given by their names.
func For(desc *grpc.ServiceDesc, methods map[string][]Role) Policy {
	policy := make(Policy, len(methods))
	for method, roles := range methods {
		policy[fullMethod(desc, method)] = roles
	}
	return policy
}

// own is the policy of gRPC's own services.
func own() Policy {
	return Policy{
		"/grpc.health.v1.Health/Check": {RoleAny},
		"/grpc.health.v1.Health/List":  {RoleAny},
		"/grpc.health.v1.Health/Watch": {RoleAny},

		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {RoleAdmin},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {RoleAdmin},
	}
}

// Registrar registers services with the policy of their methods.
type Registrar interface {
	grpc.ServiceRegistrar
	// Allow adds a policy.
	Allow(policy Policy)
}

// adminService is for operators only, even without certificates: see guard.
const adminService = "/runnel.admin.v1.AdminService/"

// isGRPC reports whether a method belongs to gRPC's own services, which are cheap and which probes call constantly.
func isGRPC(method string) bool { return strings.HasPrefix(method, "/grpc.") }
