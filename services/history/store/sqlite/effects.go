package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"

	"modernc.org/sqlite"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/chain"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

// viewStatements are the statements for effects on views and for erasures.
type viewStatements struct {
	message, reaction, dropReaction, dropAllReactions *sql.Stmt
	eraseSeqs, eraseTargets, eraseAll                 erasing

	lockHead, clearMessages, clearReactions *sql.Stmt
}

// erasing removes the reactions that some events added, then the content of these events.
type erasing struct{ reactions, content *sql.Stmt }

func (s *viewStatements) prepare(p *preparer) {
	s.message = p.stmt(`INSERT OR REPLACE INTO message_views (conversation_id, seq, edit_seq, edit_time_ms, deleted_seq, replies, last_reply_seq)
		VALUES (?,?,?,?,?,?,?)`)
	s.reaction = p.stmt("INSERT OR REPLACE INTO reactions (conversation_id, target, user_id, emoji, seq) VALUES (?,?,?,?,?)")
	s.dropReaction = p.stmt("DELETE FROM reactions WHERE conversation_id = ? AND target = ? AND seq = ?")
	s.dropAllReactions = p.stmt("DELETE FROM reactions WHERE conversation_id = ? AND target = ?")
	prepareErase := func(where string) erasing {
		where = ` WHERE conversation_id = ?1 AND seq < (?2 + 0) AND kind IN (SELECT value FROM json_each(?3))
			AND (?4 = '' OR sender = ?4) AND (?5 = 0 OR time_ms < ?5)` + where
		return erasing{
			reactions: p.stmt("DELETE FROM reactions WHERE conversation_id = ?1 AND seq IN (SELECT seq FROM events" + where + ")"),
			content:   p.stmt("UPDATE events SET commitment = coalesce(commitment, runnel_commitment(salt, body)), body = NULL, salt = NULL" + where + " AND body IS NOT NULL"),
		}
	}
	s.eraseSeqs = prepareErase(" AND seq IN (SELECT value FROM json_each(?6))")
	s.eraseTargets = prepareErase(" AND target IN (SELECT value FROM json_each(?6))")
	s.eraseAll = prepareErase(" AND ?6 IS NULL")
	s.lockHead = p.stmt("SELECT head FROM conversations WHERE conversation_id = ?")
	s.clearMessages = p.stmt("DELETE FROM message_views WHERE conversation_id = ?")
	s.clearReactions = p.stmt("DELETE FROM reactions WHERE conversation_id = ?")
}

func init() { //nolint:gochecknoinits // functions are registered with the driver, once for all connections
	sqlite.MustRegisterDeterministicScalarFunction("runnel_commitment", 2, func(_ *sqlite.FunctionContext, args []driver.Value) (driver.Value, error) {
		salt, _ := args[0].([]byte)
		body, _ := args[1].([]byte)
		commitment := chain.Commitment(salt, body)
		return commitment[:], nil
	})
}

// runMemberships begins and ends memberships.
func (a *appending) runMemberships(ctx context.Context, w *writer) error {
	for i := range a.Effects {
		row := a.Effects[i].Row
		switch effect := a.Effects[i].GetEffect().(type) {
		case *historyv1.Effect_BeginMemberships:
			args := make([]any, 0, 5*len(effect.BeginMemberships.GetUserIds()))
			for _, user := range effect.BeginMemberships.GetUserIds() {
				args = append(args, row.GetConversationId(), user, int64(row.GetSeq()), int64(a.epoch), int64(row.Sequence))
			}
			if err := w.statements.join.exec(ctx, args); violates(err) {
				return store.Invalid("events", "make a user a member who already is one")
			} else if err != nil {
				return err
			}
		case *historyv1.Effect_EndMembership:
			result, err := w.statements.leave.ExecContext(ctx, int64(row.GetSeq()), int64(a.epoch), int64(row.Sequence),
				row.GetConversationId(), effect.EndMembership.GetUserId())
			if err != nil {
				return err
			}
			if ended, err := result.RowsAffected(); err != nil || ended != 1 {
				return errors.Join(err, store.Invalid("events", "end the membership of a user who is not a member"))
			}
		}
	}
	return nil
}

// runEffects writes the effects on views, and carries out erasures.
func (a *appending) runEffects(ctx context.Context, w *writer) error {
	s := &w.statements.views
	for i := range a.Effects {
		id := ids.Conversation(a.Effects[i].Row.GetConversationId())
		var err error
		switch effect := a.Effects[i].GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			err = s.putMessage(ctx, id, effect.PutMessage)
		case *historyv1.Effect_PutReaction:
			err = s.putReaction(ctx, id, effect.PutReaction)
		case *historyv1.Effect_DropReactions:
			stmt, args := s.dropAllReactions, []any{string(id), int64(effect.DropReactions.GetTarget())}
			if seq := effect.DropReactions.GetSeq(); seq > 0 {
				stmt, args = s.dropReaction, append(args, int64(seq))
			}
			_, err = stmt.ExecContext(ctx, args...)
		case *historyv1.Effect_EraseEvents:
			_, err = s.erase(ctx, id, effect.EraseEvents)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *viewStatements) putMessage(ctx context.Context, id ids.Conversation, row *historyv1.MessageRow) error {
	_, err := s.message.ExecContext(ctx, string(id), int64(row.GetSeq()), int64(row.GetEditSeq()), row.GetEditTimeMs(), int64(row.GetDeletedSeq()),
		int64(row.GetReplies()), int64(row.GetLastReplySeq()))
	return err
}

func (s *viewStatements) putReaction(ctx context.Context, id ids.Conversation, reaction *historyv1.Reaction) error {
	_, err := s.reaction.ExecContext(ctx, string(id), int64(reaction.GetTarget()), reaction.GetUserId(), reaction.GetEmoji(), int64(reaction.GetSeq()))
	return err
}

// erase removes content and the reactions that the erased events added, and returns how many events lost their content.
func (s *viewStatements) erase(ctx context.Context, id ids.Conversation, erase *historyv1.EraseEvents) (erased int, err error) {
	kinds, seqs := jsonNumbers(erase.GetKinds()), any(nil)
	steps := []erasing{s.eraseAll}
	if len(erase.GetSeqs()) > 0 {
		steps, seqs = []erasing{s.eraseSeqs}, jsonNumbers(erase.GetSeqs())
		if erase.GetTargeting() {
			steps = append(steps, s.eraseTargets)
		}
	}
	args := []any{string(id), int64(erase.GetBelow()), kinds, erase.GetSender(), erase.GetBeforeMs(), seqs}
	for _, step := range steps {
		if _, err := step.reactions.ExecContext(ctx, args...); err != nil {
			return erased, err
		}
		result, err := step.content.ExecContext(ctx, args...)
		if err != nil {
			return erased, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return erased, err
		}
		erased += int(n)
	}
	return erased, nil
}

// jsonNumbers returns a list of numbers as one parameter.
func jsonNumbers[N uint64 | conversationv1.EventKind](numbers []N) string {
	list, err := json.Marshal(numbers)
	if err != nil || len(numbers) == 0 { // encoding numbers never fails
		return "[]"
	}
	return string(list)
}
