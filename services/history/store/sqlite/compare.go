package sqlite

import (
	"context"
	"database/sql"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// comparisonReads are the queries for comparing memberships.
type comparisonReads struct{ all, recent *sql.Stmt }

func (s *comparisonReads) prepare(p *preparer) {
	s.all = p.stmt(`SELECT user_id, conversation_id, joined_seq, coalesce(left_seq, 0) FROM memberships
		WHERE user_id IN (SELECT value FROM json_each(?)) ORDER BY user_id, conversation_id, joined_seq`)
	s.recent = p.stmt(`SELECT m.conversation_id, m.joined_seq, coalesce(m.left_seq, 0) FROM memberships AS m
		JOIN events AS e ON e.conversation_id = m.conversation_id AND e.seq = coalesce(m.left_seq, m.joined_seq)
		WHERE m.user_id = ? AND e.time_ms >= (? + 0) ORDER BY m.conversation_id, m.joined_seq LIMIT (? + 0)`)
}

// CompareMemberships returns the users whose memberships differ from those that the caller knows.
func (s *Store) CompareMemberships(ctx context.Context, request *historyv1.CompareMembershipsRequest) (*historyv1.CompareMembershipsResponse, error) {
	response, err := store.CompareMemberships(request, memberships{ctx, &s.read.comparison})
	return response, wrap("compare memberships", err)
}

// memberships implements store.Memberships for one call.
type memberships struct {
	ctx  context.Context //nolint:containedctx // the context of the one call
	read *comparisonReads
}

// All implements store.Memberships.
func (m memberships) All(users []string, take func(string, *historyv1.Membership)) error {
	return each(m.ctx, m.read.all, func(rows *sql.Rows) (bool, error) {
		var user string
		one := &historyv1.Membership{}
		if err := rows.Scan(&user, &one.ConversationId, &one.JoinedSeq, &one.LeftSeq); err != nil {
			return false, err
		}
		take(user, one)
		return true, nil
	}, jsonList(users))
}

// Recent implements store.Memberships.
func (m memberships) Recent(user string, sinceMs int64, limit int) (recent []*historyv1.Membership, err error) {
	err = each(m.ctx, m.read.recent, func(rows *sql.Rows) (bool, error) {
		one := &historyv1.Membership{}
		recent = append(recent, one)
		return true, rows.Scan(&one.ConversationId, &one.JoinedSeq, &one.LeftSeq)
	}, user, sinceMs, limit)
	return recent, err
}
