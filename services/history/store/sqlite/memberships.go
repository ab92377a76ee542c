package sqlite

import (
	"context"
	"database/sql"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// membershipReads are the queries for memberships of users.
type membershipReads struct{ newest, count *sql.Stmt }

func (s *membershipReads) prepare(p *preparer) {
	// SQLite takes the other columns from the row that has the maximum.
	s.newest = p.stmt(`SELECT conversation_id, max(joined_seq), coalesce(left_seq, 0) FROM memberships
		WHERE conversation_id IN (SELECT value FROM json_each(?)) AND user_id = ? GROUP BY conversation_id`)
	s.count = p.stmt(`SELECT user_id, count(*) FROM memberships
		WHERE user_id IN (SELECT value FROM json_each(?)) AND left_seq IS NULL GROUP BY user_id`)
}

// FindMemberships returns a user's newest membership in each of some conversations.
func (s *Store) FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest) (found []*historyv1.NewestMembership, err error) {
	err = each(ctx, s.read.memberships.newest, func(rows *sql.Rows) (bool, error) {
		m := &historyv1.NewestMembership{}
		found = append(found, m)
		return true, rows.Scan(&m.ConversationId, &m.JoinedSeq, &m.LeftSeq)
	}, jsonList(request.GetConversationIds()), request.GetUserId())
	return found, wrap("find memberships", err)
}

// CountMemberships returns how many conversations users are members of now.
func (s *Store) CountMemberships(ctx context.Context, users []string) (counts []*historyv1.MembershipCount, err error) {
	err = each(ctx, s.read.memberships.count, func(rows *sql.Rows) (bool, error) {
		c := &historyv1.MembershipCount{}
		counts = append(counts, c)
		return true, rows.Scan(&c.UserId, &c.Conversations)
	}, jsonList(users))
	return counts, wrap("count memberships", err)
}
