package rpc

import "strings"

// Role is what a process is to the others. It is proved by a DNS name in its certificate.
type Role string

// The roles. A certificate may carry several.
const (
	RoleGateway  Role = "runnel-gateway"
	RoleDelivery Role = "runnel-delivery"
	RoleHistory  Role = "runnel-history"
	// RoleAdmin is that of operators and their tools.
	RoleAdmin Role = "runnel-admin"
	// RoleService is that of services of the house that send on behalf of users, or read what was committed.
	RoleService Role = "runnel-service"

	// anyRole in the table stands for whoever has a valid certificate.
	anyRole Role = "*"
)

var (
	workers   = []Role{RoleDelivery}
	readers   = []Role{RoleGateway, RoleDelivery}
	verifiers = []Role{RoleGateway, RoleDelivery, RoleAdmin} // runnel verify reads the log, too
	askers    = []Role{RoleDelivery, RoleAdmin}
	senders   = []Role{RoleService, RoleAdmin}
	operators = []Role{RoleAdmin}
	followers = []Role{RoleDelivery, RoleService}              // they follow the feed: indexers, hooks and bridges are services
	parts     = []Role{RoleGateway, RoleDelivery, RoleService} // they agree with the store on partitions and level before they start
	everybody = []Role{anyRole}
)

// adminService is for operators alone, also where nobody has a certificate: see guard.
const adminService = "/runnel.admin.v1.AdminService/"

// policy says who may call what. What is not in it nobody may.
var policy = map[string][]Role{
	// The log, and where each partition stands: only who puts commands in order writes.
	"/runnel.history.v1.HistoryService/Append":           workers,
	"/runnel.history.v1.HistoryService/GetWatermark":     workers,
	"/runnel.history.v1.HistoryService/Lease":            workers,
	"/runnel.history.v1.HistoryService/GetConversations": workers,
	"/runnel.history.v1.HistoryService/FindCommands":     workers,
	"/runnel.history.v1.HistoryService/SaveCursors":      workers,
	"/runnel.history.v1.HistoryService/GetFacts":         workers,
	"/runnel.history.v1.HistoryService/ListRefusals":     workers,

	"/runnel.history.v1.HistoryService/Read":              verifiers,
	"/runnel.history.v1.HistoryService/ListConversations": verifiers,
	"/runnel.history.v1.HistoryService/ListMembers":       readers,
	"/runnel.history.v1.HistoryService/Heads":             verifiers,
	"/runnel.history.v1.HistoryService/ReadMessages":      readers,

	"/runnel.history.v1.HistoryService/ReadFeed":        followers,
	"/runnel.history.v1.HistoryService/GetFeedCursors":  followers,
	"/runnel.history.v1.HistoryService/SaveFeedCursor":  followers,
	"/runnel.history.v1.HistoryService/GetInstallation": parts,

	// What operators do goes through AdminService, which the workers answer.
	"/runnel.history.v1.HistoryService/ListDeadLetters": workers,
	"/runnel.history.v1.HistoryService/GetDeadLetter":   workers,
	"/runnel.history.v1.HistoryService/DropDeadLetter":  workers,
	"/runnel.history.v1.HistoryService/ListLeases":      workers,
	"/runnel.history.v1.HistoryService/MovePartition":   workers,
	"/runnel.history.v1.HistoryService/RevokeUser":      workers,
	"/runnel.history.v1.HistoryService/GetRevocations":  readers,
	"/runnel.history.v1.HistoryService/RaiseLevel":      workers,
	"/runnel.history.v1.HistoryService/MarkBackup":      workers,

	"/runnel.delivery.v1.DeliveryService/Submit":         senders,
	"/runnel.delivery.v1.DeliveryService/ListPartitions": askers,
	"/runnel.delivery.v1.DeliveryService/Explain":        askers,

	"/runnel.gateway.v1.GatewayService/ListConnections": askers,
	"/runnel.gateway.v1.GatewayService/GetConnection":   askers,
	"/runnel.gateway.v1.GatewayService/Disconnect":      askers,
	"/runnel.gateway.v1.GatewayService/Explain":         askers,
	"/runnel.gateway.v1.GatewayService/GetGateway":      askers,

	adminService + "GetStatus":          operators,
	adminService + "ListConnections":    operators,
	adminService + "GetConnection":      operators,
	adminService + "Disconnect":         operators,
	adminService + "GetUser":            operators,
	adminService + "RevokeUser":         operators,
	adminService + "ListConversations":  operators,
	adminService + "GetConversation":    operators,
	adminService + "ListMembers":        operators,
	adminService + "VerifyConversation": operators,
	adminService + "ListPartitions":     operators,
	adminService + "MovePartition":      operators,
	adminService + "ListDeadLetters":    operators,
	adminService + "GetDeadLetter":      operators,
	adminService + "RetryDeadLetter":    operators,
	adminService + "DropDeadLetter":     operators,
	adminService + "Explain":            operators,
	adminService + "GetLevel":           operators,
	adminService + "RaiseLevel":         operators,
	adminService + "Erase":              operators,
	adminService + "MarkBackup":         operators,

	"/grpc.health.v1.Health/Check": everybody,
	"/grpc.health.v1.Health/List":  everybody,
	"/grpc.health.v1.Health/Watch": everybody,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      operators,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": operators,
}

// isGRPC tells gRPC's own services, which cost nothing and which probes call all day.
func isGRPC(method string) bool { return strings.HasPrefix(method, "/grpc.") }
