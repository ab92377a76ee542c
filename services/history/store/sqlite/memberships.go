package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/rpc"

	"github.com/runnelhq/runnel/services/history/store"
)

// membershipReads are the queries for memberships of users.
type membershipReads struct{ newest, count, removed, ended *sql.Stmt }

func (s *membershipReads) prepare(p *preparer) {
	// SQLite takes the other columns from the row with the maximum.
	s.newest = p.stmt(`SELECT conversation_id, max(joined_seq), coalesce(left_seq, 0) FROM memberships
		WHERE conversation_id IN (SELECT value FROM json_each(?)) AND user_id = ? GROUP BY conversation_id`)
	s.count = p.stmt(`SELECT user_id, count(*) FROM memberships
		WHERE user_id IN (SELECT value FROM json_each(?)) AND left_seq IS NULL GROUP BY user_id`)
	s.ended = p.stmt(`SELECT m.conversation_id, m.joined_seq, m.left_seq FROM memberships AS m
		JOIN events AS e ON e.conversation_id = m.conversation_id AND e.seq = m.joined_seq
		WHERE m.user_id = ? AND m.conversation_id IN (SELECT value FROM json_each(?)) AND m.left_seq IS NOT NULL AND e.time_ms >= (? + 0)
		ORDER BY m.conversation_id, m.joined_seq LIMIT (? + 0)`)
	s.removed = p.stmt(`SELECT m.conversation_id, m.user_id, m.left_seq FROM memberships AS m
		JOIN events AS e ON e.conversation_id = m.conversation_id AND e.seq = m.left_seq
		WHERE m.conversation_id IN (SELECT value FROM json_each(?)) AND e.kind IN (SELECT value FROM json_each(?))
			AND NOT EXISTS (SELECT 1 FROM memberships AS r WHERE r.conversation_id = m.conversation_id AND r.user_id = m.user_id AND r.joined_seq > m.joined_seq)
		ORDER BY m.conversation_id, m.left_seq DESC`)
}

// addRemoved adds the removed users to states that have this many members in total. It runs a second statement. An append
// between both statements is possible only if this worker no longer owns the partition; then its states are never used.
func (s *Store) addRemoved(ctx context.Context, states []*historyv1.ConversationState, members int) error {
	named := make([]string, len(states))
	for i, state := range states {
		named[i] = state.GetConversationId()
	}
	kinds, err := json.Marshal(conversation.RemovalKinds())
	if err != nil {
		return err
	}
	removals := store.NewRemovals(states, members)
	return each(ctx, s.read.memberships.removed, func(rows *sql.Rows) (bool, error) {
		var id string
		removal := &historyv1.Removal{}
		if err := rows.Scan(&id, &removal.UserId, &removal.Seq); err != nil {
			return false, err
		}
		return true, removals.Add(id, removal)
	}, jsonList(named), string(kinds))
}

// FindMemberships returns a user's newest membership in each of the requested conversations.
func (s *Store) FindMemberships(ctx context.Context, request *historyv1.FindMembershipsRequest) (found []*historyv1.NewestMembership, err error) {
	err = each(ctx, s.read.memberships.newest, func(rows *sql.Rows) (bool, error) {
		m := &historyv1.NewestMembership{}
		found = append(found, m)
		return true, rows.Scan(&m.ConversationId, &m.JoinedSeq, &m.LeftSeq)
	}, jsonList(request.GetConversationIds()), request.GetUserId())
	return found, wrap("find memberships", err)
}

// listEnded returns the memberships that ListConversationsRequest.ended_since_ms asks for.
func (s *Store) listEnded(ctx context.Context, request *historyv1.ListConversationsRequest) (ended []*historyv1.Membership, err error) {
	err = each(ctx, s.read.memberships.ended, func(rows *sql.Rows) (bool, error) {
		one := &historyv1.Membership{}
		ended = append(ended, one)
		return true, rows.Scan(&one.ConversationId, &one.JoinedSeq, &one.LeftSeq)
	}, request.GetUserId(), jsonList(request.GetConversationIds()), request.GetEndedSinceMs(), rpc.MaxItems)
	return ended, err
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
