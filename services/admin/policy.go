package admin

import (
	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/rpc"
)

// Policy allows only operators to call AdminService.
func Policy() rpc.Policy {
	operators := []rpc.Role{rpc.RoleAdmin}
	return rpc.For(&adminv1.AdminService_ServiceDesc, map[string][]rpc.Role{
		"GetStatus":          operators,
		"ListConnections":    operators,
		"GetConnection":      operators,
		"Disconnect":         operators,
		"GetUser":            operators,
		"RevokeUser":         operators,
		"ListConversations":  operators,
		"GetConversation":    operators,
		"ListMembers":        operators,
		"VerifyConversation": operators,
		"ListPartitions":     operators,
		"MovePartition":      operators,
		"ListDeadLetters":    operators,
		"GetDeadLetter":      operators,
		"RetryDeadLetter":    operators,
		"DropDeadLetter":     operators,
		"Explain":            operators,
		"GetLevel":           operators,
		"RaiseLevel":         operators,
		"Erase":              operators,
		"MarkBackup":         operators,
	})
}
