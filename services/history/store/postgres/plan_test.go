package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/postgrestest"
)

// TestEveryQueryGoesByKey checks the plans that are made while the tables are empty, and kept (generic plans) while they
// grow: none may read a whole table or index.
func TestEveryQueryGoesByKey(t *testing.T) {
	s, err := Open(t.Context(), Config{URL: postgrestest.Start(t)}, 16, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	for name, query := range map[string]string{
		"moveFreeWatermark": moveFreeWatermark, "moveFreeWatermarks": moveFreeWatermarks, "moveHead": moveHead, "insertEvent": insertEvent, "moveHeads": moveHeads, "insertPlain": insertPlain, "insertFull": insertFull, "selectDuplicates": selectDuplicates, "endMembership": endMembership, "alterConversation": alterConversation,
		"selectCommands": selectCommands, "selectRising": selectRising, "selectFalling": selectFalling, "selectHead": selectHead,
		"selectView": selectView, "selectStates": selectStates, "selectHeads": selectHeads, "selectListAll": selectListAll, "selectListNamed": selectListNamed,
		"selectNewestMemberships": selectNewestMemberships, "selectEndedMemberships": selectEndedMemberships, "countMemberships": countMemberships, "selectRemoved": selectRemoved,
		"selectAllMemberships": selectAllMemberships, "selectRecentMemberships": selectRecentMemberships,
		"selectMembers": selectMembers, "selectMember": selectMember, "selectDeadLetters": selectDeadLetters, "selectDeadLetter": selectDeadLetter, "deleteDeadLetter": deleteDeadLetter,
		"selectRevoked": selectRevoked, "selectRevocations": selectRevocations, "selectRevocation": selectRevocation, "revoke": revoke, "setWanted": setWanted,
		"insertRefusal": insertRefusal, "dropRefusals": dropRefusals, "dropReaction": dropReaction, "dropAllReactions": dropAllReactions,
		"eraseSeqs": eraseSet + eraseWhere + ofSeqs, "eraseTargets": eraseSet + eraseWhere + ofTargets, "erase": eraseSet + eraseWhere,
		"dropErasedSeqs": dropErased + eraseWhere + ofSeqs + ")", "dropErasedTargets": dropErased + eraseWhere + ofTargets + ")",
		"selectFacts": selectFacts, "selectReactions": selectReactions, "selectMessagesRising": selectMessagesRising,
		"selectMessagesFalling": selectMessagesFalling, "selectCounts": selectCounts, "selectIDs": selectIDs, "selectEpoch": selectEpoch,
		"selectFeed": selectFeed, "selectEpochs": selectEpochs, "selectFeedCursors": selectFeedCursors, "selectRefusals": selectRefusals, "selectHashes": selectHashes,
	} {
		plan := explain(t, s, query)
		require.NotContains(t, plan, "Seq Scan", "%s:\n%s", name, plan)
		require.NotContains(t, plan, "Hash Join", "%s:\n%s", name, plan)
		lines := strings.Split(plan, "\n")
		for i, line := range lines {
			if strings.Contains(line, "Index") && strings.Contains(line, "Scan") {
				require.Contains(t, lines[i+1], "Index Cond", "%s reads a whole index:\n%s", name, plan)
			}
			if strings.Contains(line, "Index Cond") && strings.Contains(lines[i-1], "memberships_present") {
				require.Contains(t, line, "user_id =", "%s reads all of memberships_present:\n%s", name, plan)
			}
		}
	}
}

func explain(t *testing.T, s *Store, query string) string {
	t.Helper()
	var plan strings.Builder
	err := s.pool.AcquireFunc(t.Context(), func(conn *pgxpool.Conn) error {
		ctx := context.WithoutCancel(t.Context())
		if _, err := conn.Exec(ctx, "SET plan_cache_mode = force_generic_plan"); err != nil {
			return err
		}
		if _, err := conn.Exec(ctx, "PREPARE explained AS "+query); err != nil {
			return err
		}
		defer func() { _, _ = conn.Exec(ctx, "DEALLOCATE explained") }()
		var arguments []string
		for strings.Contains(query, fmt.Sprintf("$%d", len(arguments)+1)) {
			arguments = append(arguments, "NULL")
		}
		rows, err := conn.Query(ctx, "EXPLAIN EXECUTE explained("+strings.Join(arguments, ",")+")")
		if err != nil {
			return err
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		plan.WriteString(strings.Join(lines, "\n"))
		return err
	})
	require.NoError(t, err)
	return plan.String()
}
