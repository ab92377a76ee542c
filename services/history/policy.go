package history

import (
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Policy says who may call HistoryService. Only the worker that puts commands in order writes the log. What operators do goes through
// AdminService, which the workers answer.
func Policy() rpc.Policy {
	var (
		workers   = []rpc.Role{rpc.RoleDelivery}
		verifiers = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery, rpc.RoleAdmin} // runnel verify reads the log, too
		readers   = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery}
		followers = []rpc.Role{rpc.RoleDelivery, rpc.RoleService}                  // they follow the feed: indexers, hooks and bridges are services
		parts     = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery, rpc.RoleService} // they agree with the store on partitions and level before they start
	)
	return rpc.For(&historyv1.HistoryService_ServiceDesc, map[string][]rpc.Role{
		"Append":            workers,
		"GetWatermark":      workers,
		"Lease":             workers,
		"GetConversations":  workers,
		"FindCommands":      workers,
		"SaveCursors":       workers,
		"GetFacts":          workers,
		"ListRefusals":      workers,
		"Read":              verifiers,
		"ListConversations": verifiers,
		"ListMembers":       readers,
		"Heads":             verifiers,
		"ReadMessages":      readers,
		"ReadFeed":          followers,
		"GetFeedCursors":    followers,
		"SaveFeedCursor":    followers,
		"GetInstallation":   parts,
		"ListDeadLetters":   workers,
		"GetDeadLetter":     workers,
		"DropDeadLetter":    workers,
		"ListLeases":        workers,
		"MovePartition":     workers,
		"RevokeUser":        workers,
		"GetRevocations":    readers,
		"RaiseLevel":        workers,
		"MarkBackup":        workers,
	})
}
