package admincli_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	adminv1 "github.com/runnelhq/runnel/proto/runnel/admin/v1"

	"github.com/runnelhq/runnel/pkg/terminal"
	"github.com/runnelhq/runnel/pkg/terminal/terminaltest"
)

// TestNothingHostileReachesTheTerminal runs every command against a worker all of whose texts are hostile, and against one that
// refuses with such a text.
func TestNothingHostileReachesTheTerminal(t *testing.T) {
	// The answer by the name of the method, and the command lines that ask for it.
	commands := map[string]struct {
		answer proto.Message
		lines  [][]string
	}{
		"GetStatus":          {&adminv1.GetStatusResponse{}, [][]string{{"status"}}},
		"ListConnections":    {&adminv1.ListConnectionsResponse{}, [][]string{{"connections", "list"}}},
		"GetConnection":      {&adminv1.GetConnectionResponse{}, [][]string{{"connections", "inspect", "x"}}},
		"Disconnect":         {&adminv1.DisconnectResponse{}, [][]string{{"connections", "disconnect", "x"}}},
		"GetUser":            {&adminv1.GetUserResponse{}, [][]string{{"users", "sessions", "bob"}}},
		"RevokeUser":         {&adminv1.RevokeUserResponse{}, [][]string{{"users", "revoke", "bob"}}},
		"ListConversations":  {&adminv1.ListConversationsResponse{}, [][]string{{"conversations", "list", "--user", "bob"}}},
		"GetConversation":    {&adminv1.GetConversationResponse{}, [][]string{{"conversations", "show", "g"}}},
		"ListMembers":        {&adminv1.ListMembersResponse{}, [][]string{{"conversations", "members", "g"}}},
		"VerifyConversation": {&adminv1.VerifyConversationResponse{}, [][]string{{"conversations", "verify", terminaltest.Hostile}}},
		"ListPartitions":     {&adminv1.ListPartitionsResponse{}, [][]string{{"partitions", "list"}}},
		"MovePartition":      {&adminv1.MovePartitionResponse{}, [][]string{{"partitions", "move", "1", terminaltest.Hostile}, {"partitions", "move", "1", "--any"}}},
		"ListDeadLetters":    {&adminv1.ListDeadLettersResponse{}, [][]string{{"dead-letters", "list"}}},
		"GetDeadLetter":      {&adminv1.GetDeadLetterResponse{}, [][]string{{"dead-letters", "show", "x"}}},
		"RetryDeadLetter":    {&adminv1.RetryDeadLetterResponse{}, [][]string{{"dead-letters", "retry", "x"}}},
		"DropDeadLetter":     {&adminv1.DropDeadLetterResponse{}, [][]string{{"dead-letters", "drop", "--yes", terminaltest.Hostile}}},
		"Explain":            {&adminv1.ExplainResponse{}, [][]string{{"explain", "--user", "bob", "--conversation", "g", "--seq", "1"}}},
		"GetLevel":           {&adminv1.GetLevelResponse{}, [][]string{{"level"}}},
		"RaiseLevel":         {&adminv1.RaiseLevelResponse{}, [][]string{{"level", "--raise", "2"}}},
		"Erase":              {&adminv1.EraseResponse{}, [][]string{{"erase", "g", "--seq", "1", "--yes"}}},
		"MarkBackup":         {&adminv1.MarkBackupResponse{}, [][]string{{"backup", "mark", "--now"}}},
	}
	for _, method := range adminv1.AdminService_ServiceDesc.Methods {
		c, there := commands[method.MethodName]
		require.True(t, there, "add a command that calls %s", method.MethodName)
		t.Run(method.MethodName, func(t *testing.T) {
			terminaltest.Spoil(c.answer.ProtoReflect())
			spoiled := serve(t, answering(c.answer))
			refused := serve(t, refusing(codes.InvalidArgument, terminaltest.Text))
			for _, line := range c.lines {
				for _, address := range []string{spoiled, refused} {
					for _, flags := range [][]string{nil, {"--json"}} {
						valid := make([]string, 0, len(line))
						for _, word := range line {
							valid = append(valid, strings.ToValidUTF8(word, "?"))
						}
						r := run(t, 0, append(append([]string{"--address", address}, flags...), valid...)...)
						require.NotEqual(t, 2, r.code, r.err)
						printed := r.out
						if flags != nil {
							printed = strings.ReplaceAll(printed, "\u0301", "") // JSON keeps how many there are
						}
						require.NoError(t, terminaltest.Check(printed))
						require.NoError(t, terminaltest.Check("runnel: "+terminal.Text(r.err)))
					}
				}
			}
		})
	}
}
