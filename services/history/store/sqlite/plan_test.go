package sqlite

import (
	"database/sql"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryQueryGoesByKey asks SQLite for the plan of each statement of the store: none may read a whole table.
func TestEveryQueryGoesByKey(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "history.db")}, 16, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	var queries []string
	recorder := &preparer{prepare: func(query string) (*sql.Stmt, error) {
		queries = append(queries, query)
		return nil, nil
	}}
	_, err = prepareReads(recorder)
	require.NoError(t, err)
	(&writeStatements{}).prepare(recorder)
	explained := 0
	for _, query := range queries {
		for _, step := range explain(t, s.readers, query) {
			explained++
			if table, whole := strings.CutPrefix(step, "SCAN "); whole {
				for _, stored := range []string{"conversations", "events", "memberships", "peer", "cursors", "dead_letters", "message_views", "reactions", "refusals", "e", "d", "m", "r"} {
					name, _, _ := strings.Cut(table, " ")
					require.NotEqual(t, stored, name, "%s\nreads all of %s", query, table)
				}
			}
		}
	}
	require.Positive(t, explained)
}

func explain(t *testing.T, db *sql.DB, query string) (steps []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
	require.NoError(t, err, query)
	defer func() { require.NoError(t, rows.Close()) }()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		steps = append(steps, detail)
	}
	require.NoError(t, rows.Err())
	return steps
}
