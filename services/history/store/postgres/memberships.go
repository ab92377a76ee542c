package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

const (
	selectNewestMemberships = `SELECT v.conversation_id, newest.joined_seq, coalesce(newest.left_seq, 0)
		FROM unnest($1::text[]) AS v (conversation_id)
		CROSS JOIN LATERAL (SELECT joined_seq, left_seq FROM memberships
			WHERE memberships.conversation_id = v.conversation_id AND user_id = $2 ORDER BY joined_seq DESC LIMIT 1) AS newest`
	countMemberships = "SELECT user_id, count(*) FROM memberships WHERE user_id = ANY ($1::text[]) AND left_seq IS NULL GROUP BY user_id"
)

// FindMemberships returns a user's newest membership in each of some conversations.
func (s *Store) FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest) (found []*historyv1.NewestMembership, err error) {
	err = s.each(ctx, s.pool.reading, func(rows pgx.Rows) (bool, error) {
		m := &historyv1.NewestMembership{}
		found = append(found, m)
		return true, rows.Scan(&m.ConversationId, &m.JoinedSeq, &m.LeftSeq)
	}, selectNewestMemberships, request.GetConversationIds(), request.GetUserId())
	return found, wrap("find memberships", err)
}

// CountMemberships returns how many conversations users are members of now.
func (s *Store) CountMemberships(ctx context.Context, users []string) (counts []*historyv1.MembershipCount, err error) {
	err = s.each(ctx, s.pool.reading, func(rows pgx.Rows) (bool, error) {
		c := &historyv1.MembershipCount{}
		counts = append(counts, c)
		return true, rows.Scan(&c.UserId, &c.Conversations)
	}, countMemberships, users)
	return counts, wrap("count memberships", err)
}
