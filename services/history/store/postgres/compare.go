package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	selectAllMemberships = `SELECT user_id, conversation_id, joined_seq, coalesce(left_seq, 0) FROM memberships
		WHERE user_id = ANY ($1::text[]) ORDER BY user_id, conversation_id, joined_seq`
	// The events are looked up one by one: a join could read the whole table.
	selectRecentMemberships = `SELECT conversation_id, joined_seq, coalesce(left_seq, 0) FROM memberships
		WHERE user_id = $1 AND $2::bigint <= (SELECT events.time_ms FROM events
			WHERE events.conversation_id = memberships.conversation_id AND events.seq = coalesce(left_seq, joined_seq))
		ORDER BY conversation_id, joined_seq LIMIT $3`
)

// CompareMemberships returns the users whose memberships differ from those that the caller knows.
func (s *Store) CompareMemberships(ctx context.Context, request *historyv1.CompareMembershipsRequest) (response *historyv1.CompareMembershipsResponse, err error) {
	err = s.pool.reading(ctx, func(conn *pgxpool.Conn) error {
		response, err = store.CompareMemberships(request, memberships{ctx, conn})
		return err
	})
	return response, wrap("compare memberships", err)
}

// memberships implements store.Memberships for one call.
type memberships struct {
	ctx  context.Context //nolint:containedctx // the context of the one call
	conn querier
}

// All implements store.Memberships.
func (m memberships) All(users []string, take func(string, *historyv1.Membership)) error {
	return each(m.ctx, m.conn, func(rows pgx.Rows) (bool, error) {
		var user string
		one := &historyv1.Membership{}
		if err := rows.Scan(&user, &one.ConversationId, &one.JoinedSeq, &one.LeftSeq); err != nil {
			return false, err
		}
		take(user, one)
		return true, nil
	}, selectAllMemberships, users)
}

// Recent implements store.Memberships.
func (m memberships) Recent(user string, sinceMs int64, limit int) (recent []*historyv1.Membership, err error) {
	err = each(m.ctx, m.conn, func(rows pgx.Rows) (bool, error) {
		one := &historyv1.Membership{}
		recent = append(recent, one)
		return true, rows.Scan(&one.ConversationId, &one.JoinedSeq, &one.LeftSeq)
	}, selectRecentMemberships, user, sinceMs, limit)
	return recent, err
}
