package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	selectNewestMemberships = `SELECT v.conversation_id, newest.joined_seq, coalesce(newest.left_seq, 0)
		FROM unnest($1::text[]) AS v (conversation_id)
		CROSS JOIN LATERAL (SELECT joined_seq, left_seq FROM memberships
			WHERE memberships.conversation_id = v.conversation_id AND user_id = $2 ORDER BY joined_seq DESC LIMIT 1) AS newest`
	countMemberships = "SELECT user_id, count(*) FROM memberships WHERE user_id = ANY ($1::text[]) AND left_seq IS NULL GROUP BY user_id"
	selectRemoved    = `SELECT m.conversation_id, m.user_id, m.left_seq FROM unnest($1::text[]) AS v (conversation_id)
		CROSS JOIN LATERAL (SELECT ended.conversation_id, ended.user_id, ended.joined_seq, ended.left_seq FROM memberships AS ended
			JOIN events ON events.conversation_id = ended.conversation_id AND events.seq = ended.left_seq
			WHERE ended.conversation_id = v.conversation_id AND events.kind = ANY ($2::int[])) AS m
		WHERE NOT EXISTS (SELECT 1 FROM memberships AS r WHERE r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.joined_seq > m.joined_seq)
		ORDER BY m.conversation_id, m.left_seq DESC`
)

// addRemoved adds the removed users to states that have this many members in total. It runs a second statement. An append
// between both statements is possible only if this worker no longer owns the partition; then its states are never used.
func (s *Store) addRemoved(ctx context.Context, states []*historyv1.ConversationState, members int) error {
	named := make([]string, len(states))
	for i, state := range states {
		named[i] = state.GetConversationId()
	}
	removing := conversation.RemovalKinds()
	kinds := make([]int32, len(removing))
	for i, kind := range removing {
		kinds[i] = int32(kind)
	}
	removals := store.NewRemovals(states, members)
	return s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		var id string
		removal := &historyv1.Removal{}
		if err := rows.Scan(&id, &removal.UserId, &removal.Seq); err != nil {
			return false, err
		}
		return true, removals.Add(id, removal)
	}, selectRemoved, named, kinds)
}

// FindMemberships returns a user's newest membership in each of the requested conversations.
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
