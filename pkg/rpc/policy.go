package rpc

import (
	"strings"

	"google.golang.org/grpc"
)

// Role is the role of a process when it communicates with other processes. A DNS name in its certificate proves the role.
type Role string

// The roles. A certificate may contain several roles.
const (
	RoleGateway  Role = "runnel-gateway"
	RoleDelivery Role = "runnel-delivery"
	RoleHistory  Role = "runnel-history"
	// RoleAdmin is the role of operators and their tools.
	RoleAdmin Role = "runnel-admin"
	// RoleService is the role of internal services that send on behalf of users, or read committed events.
	RoleService Role = "runnel-service"

	// RoleAny is the role of every caller with a valid certificate.
	RoleAny Role = "*"
)

// Policy defines which roles may call which methods. A method without an entry cannot be called, and a server with such a
// method does not start. Each service defines its own policy, next to its implementation.
type Policy map[string][]Role

// For returns the policy for the methods of one service; methods contains the roles by method name.
func For(desc *grpc.ServiceDesc, methods map[string][]Role) Policy {
	policy := make(Policy, len(methods))
	for method, roles := range methods {
		policy[fullMethod(desc, method)] = roles
	}
	return policy
}

// own returns the policy of gRPC's own services.
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

// adminService is the prefix of methods that only operators may call, even without certificates: see guard.
const adminService = "/runnel.admin.v1.AdminService/"

// isGRPC reports whether a method belongs to gRPC's own services. These methods are cheap, and probes call them
// constantly.
func isGRPC(method string) bool { return strings.HasPrefix(method, "/grpc.") }
