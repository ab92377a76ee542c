package history

import (
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Policy defines who may call HistoryService. Only delivery workers write the log. Operators call AdminService; the
// workers answer it.
func Policy() rpc.Policy {
	var (
		workers   = []rpc.Role{rpc.RoleDelivery}
		verifiers = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery, rpc.RoleAdmin} // runnel verify also reads the log
		readers   = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery}
		followers = []rpc.Role{rpc.RoleDelivery, rpc.RoleService}                  // indexers, hooks and bridges read the feed
		parts     = []rpc.Role{rpc.RoleGateway, rpc.RoleDelivery, rpc.RoleService} // every service reads the partitions and the level before it starts
	)
	return rpc.For(&historyv1.HistoryService_ServiceDesc, map[string][]rpc.Role{
		"Append":             workers,
		"GetWatermark":       workers,
		"Lease":              workers,
		"GetConversations":   workers,
		"FindCommands":       workers,
		"SaveCursors":        workers,
		"GetFacts":           workers,
		"ListRefusals":       workers,
		"Read":               verifiers,
		"ListConversations":  verifiers,
		"FindMemberships":    readers,
		"CountMemberships":   readers,
		"CompareMemberships": readers,
		"ListMembers":        readers,
		"Heads":              verifiers,
		"ReadMessages":       readers,
		"ReadFeed":           followers,
		"GetFeedCursors":     followers,
		"SaveFeedCursor":     followers,
		"GetInstallation":    parts,
		"ListDeadLetters":    workers,
		"GetDeadLetter":      workers,
		"DropDeadLetter":     workers,
		"ListLeases":         workers,
		"MovePartition":      workers,
		"RevokeUser":         workers,
		"GetRevocations":     readers,
		"RaiseLevel":         workers,
		"MarkBackup":         workers,
	})
}
