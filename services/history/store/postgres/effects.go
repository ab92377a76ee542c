package postgres

import (
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	putMessage = `INSERT INTO message_views (conversation_id, seq, edit_seq, edit_time_ms, deleted_seq, replies, last_reply_seq)
		VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (conversation_id, seq) DO UPDATE SET edit_seq = excluded.edit_seq,
		edit_time_ms = excluded.edit_time_ms, deleted_seq = excluded.deleted_seq, replies = excluded.replies, last_reply_seq = excluded.last_reply_seq`
	putReaction = `INSERT INTO reactions (conversation_id, target, user_id, emoji, seq) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (conversation_id, target, user_id, emoji) DO UPDATE SET seq = excluded.seq`
	dropReaction     = "DELETE FROM reactions WHERE conversation_id = $1 AND target = $2 AND seq = $3"
	dropAllReactions = "DELETE FROM reactions WHERE conversation_id = $1 AND target = $2"

	// commitment is chain.Commitment in SQL.
	commitment = `sha256(int8send(17) || 'runnel.content.v2'::bytea || int8send(octet_length(salt)) || salt || int8send(octet_length(body)) || body)`
	// An erasure of erased events may be repeated: it removes the reactions that they added in any case.
	eraseWhere = ` WHERE conversation_id = $1 AND seq < $2 AND kind = ANY ($3::int[]) AND ($4::text = '' OR sender = $4) AND ($5::bigint = 0 OR time_ms < $5)`
	eraseSet   = `UPDATE events SET commitment = coalesce(commitment, ` + commitment + `), body = NULL, salt = NULL`
	dropErased = `DELETE FROM reactions WHERE conversation_id = $1 AND seq IN (SELECT seq FROM events`

	ofSeqs    = ` AND seq = ANY ($6::bigint[])`
	ofTargets = ` AND target = ANY ($6::bigint[])`
)

// queueMemberships begins and ends memberships.
func queueMemberships(sql *pgx.Batch, batch *store.Batch, epoch ids.Epoch) {
	for i := range batch.Effects {
		row := batch.Effects[i].Row
		switch effect := batch.Effects[i].GetEffect().(type) {
		case *historyv1.Effect_BeginMemberships:
			sql.Queue(beginMemberships, row.GetConversationId(), effect.BeginMemberships.GetUserIds(), row.GetSeq(), uint64(epoch), uint64(row.Sequence))
		case *historyv1.Effect_EndMembership:
			sql.Queue(endMembership, row.GetSeq(), row.GetConversationId(), effect.EndMembership.GetUserId(), uint64(epoch), uint64(row.Sequence))
		}
	}
}

// queueEffects writes the effects on views, and carries out erasures.
func queueEffects(sql *pgx.Batch, batch *store.Batch) {
	for i := range batch.Effects {
		id := ids.Conversation(batch.Effects[i].Row.GetConversationId())
		switch effect := batch.Effects[i].GetEffect().(type) {
		case *historyv1.Effect_PutMessage:
			queueMessage(sql, id, effect.PutMessage)
		case *historyv1.Effect_PutReaction:
			queueReaction(sql, id, effect.PutReaction)
		case *historyv1.Effect_DropReactions:
			if seq := effect.DropReactions.GetSeq(); seq > 0 {
				sql.Queue(dropReaction, string(id), effect.DropReactions.GetTarget(), seq)
			} else {
				sql.Queue(dropAllReactions, string(id), effect.DropReactions.GetTarget())
			}
		case *historyv1.Effect_EraseEvents:
			for _, step := range eraseSteps(effect.EraseEvents) {
				args := eraseArgs(id, effect.EraseEvents)
				sql.Queue(fmt.Sprintf("%s%s%s)", dropErased, eraseWhere, step), args...)
				sql.Queue(eraseSet+eraseWhere+step+" AND body IS NOT NULL", args...)
			}
		}
	}
}

func queueMessage(sql *pgx.Batch, id ids.Conversation, row *historyv1.MessageRow) {
	sql.Queue(putMessage, string(id), row.GetSeq(), row.GetEditSeq(), row.GetEditTimeMs(), row.GetDeletedSeq(), row.GetReplies(), row.GetLastReplySeq())
}

func queueReaction(sql *pgx.Batch, id ids.Conversation, reaction *historyv1.Reaction) {
	sql.Queue(putReaction, string(id), reaction.GetTarget(), reaction.GetUserId(), reaction.GetEmoji(), reaction.GetSeq())
}

// eraseSteps returns the conditions of the statements of an erasure. Each is added to eraseWhere.
func eraseSteps(erase *historyv1.EraseEvents) []string {
	switch {
	case len(erase.GetSeqs()) == 0:
		return []string{""}
	case erase.GetTargeting():
		return []string{ofSeqs, ofTargets}
	}
	return []string{ofSeqs}
}

func eraseArgs(id ids.Conversation, erase *historyv1.EraseEvents) []any {
	args := []any{string(id), erase.GetBelow(), numbers[int32](erase.GetKinds()), erase.GetSender(), erase.GetBeforeMs()}
	if len(erase.GetSeqs()) > 0 {
		args = append(args, numbers[int64](erase.GetSeqs()))
	}
	return args
}

// numbers converts numbers to the type of a column.
func numbers[To int32 | int64, From uint64 | conversationv1.EventKind](from []From) []To {
	to := make([]To, len(from))
	for i, n := range from {
		to[i] = To(n)
	}
	return to
}
