package postgres

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// rowColumns are the columns of a message's view row; all are NULL if the message has no view row.
	rowColumns  = "m.seq, m.edit_seq, m.edit_time_ms, m.deleted_seq, m.replies, m.last_reply_seq"
	joinRow     = " LEFT JOIN message_views AS m ON m.conversation_id = events.conversation_id AND m.seq = events.seq"
	selectFacts = "SELECT n.ordinality - 1, events.kind, events.sender, events.time_ms, events.body IS NULL, " + rowColumns + `
		FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS n (id, seq, ordinality)
		JOIN events ON events.conversation_id = n.id AND events.seq = n.seq` + joinRow + " ORDER BY n.ordinality"
	selectReactions = `SELECT n.ordinality - 1, r.target, r.user_id, r.emoji, r.seq
		FROM unnest($1::text[], $2::bigint[], $3::text[]) WITH ORDINALITY AS n (id, seq, user_id, ordinality)
		JOIN reactions AS r ON r.conversation_id = n.id AND r.target = n.seq AND r.user_id = n.user_id ORDER BY n.ordinality, r.seq`
	selectMessages = "SELECT " + eventColumns + ", " + previousHash + ", " + rowColumns + `, d.time_ms, d.sender, d.command_id::text, d.kind, d.format,
		d.body, d.salt, d.commitment, d.hash, d.header_extra,
		(SELECT p.hash FROM events AS p WHERE p.conversation_id = d.conversation_id AND p.seq = d.seq - 1) FROM events` + joinRow + `
		LEFT JOIN events AS d ON d.conversation_id = events.conversation_id AND d.seq = m.edit_seq
		WHERE events.conversation_id = $1 AND events.seq BETWEEN $2 AND $3 AND events.kind = ANY ($4::int[])`
	selectMessagesRising  = selectMessages + " ORDER BY events.seq LIMIT $5"
	selectMessagesFalling = selectMessages + " ORDER BY events.seq DESC LIMIT $5"
	selectCounts          = `SELECT target, emoji, count(*), bool_or(user_id = $3) FROM reactions
		WHERE conversation_id = $1 AND target = ANY ($2::bigint[]) GROUP BY target, emoji ORDER BY target, count(*) DESC, emoji`
	selectIDs = "SELECT conversation_id FROM conversations WHERE conversation_id > $1 ORDER BY conversation_id LIMIT $2"
	lockHead  = "SELECT head FROM conversations WHERE conversation_id = $1 FOR UPDATE"
)

// Facts returns the facts about messages, in one round trip. Both queries see the same data: only the owner of the
// partition, which is the caller, appends to it.
func (s *Store) Facts(ctx context.Context, needs []*historyv1.Need) ([]*historyv1.Fact, error) {
	conversations, seqs, users := make([]string, len(needs)), make([]int64, len(needs)), make([]string, len(needs))
	named := false
	for i, need := range needs {
		conversations[i], seqs[i], users[i] = need.GetConversationId(), int64(need.GetSeq()), need.GetUserId()
		named = named || users[i] != ""
	}
	facts := make([]*historyv1.Fact, 0, len(needs))
	byNeed := make(map[uint32]*historyv1.Fact, len(needs))
	sql := &pgx.Batch{}
	sql.Queue(selectFacts, conversations, seqs).Query(func(rows pgx.Rows) error {
		return every(rows, func() error {
			fact, row, kind := &historyv1.Fact{}, store.ViewRow{}, int32(0)
			err := rows.Scan(append([]any{&fact.Need, &kind, &fact.Sender, &fact.TimeMs, &fact.Erased}, row.Dest()...)...)
			fact.Kind, fact.Row = conversationv1.EventKind(kind), row.Row()
			facts, byNeed[fact.GetNeed()] = append(facts, fact), fact
			return err
		})
	})
	if named {
		sql.Queue(selectReactions, conversations, seqs, users).Query(func(rows pgx.Rows) error {
			return every(rows, func() error {
				reaction, need := &historyv1.Reaction{}, uint32(0)
				err := rows.Scan(&need, &reaction.Target, &reaction.UserId, &reaction.Emoji, &reaction.Seq)
				if fact := byNeed[need]; fact != nil {
					fact.Reactions = append(fact.Reactions, reaction)
				}
				return err
			})
		})
	}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error { return conn.SendBatch(ctx, sql).Close() })
	return facts, wrap("read facts", err)
}

// ReadMessages returns a page of messages, in one read transaction.
func (s *Store) ReadMessages(ctx context.Context, request *historyv1.ReadMessagesRequest) (page *historyv1.ReadMessagesResponse, err error) {
	err = s.pool.reading(ctx, func(conn *pgxpool.Conn) error {
		return pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			page, err = readMessages(ctx, tx, request)
			return err
		})
	})
	return page, answer("read messages", err)
}

func readMessages(ctx context.Context, tx pgx.Tx, request *historyv1.ReadMessagesRequest) (*historyv1.ReadMessagesResponse, error) {
	id := ids.Conversation(request.GetConversationId())
	view, err := view(ctx, tx, id, ids.User(request.GetViewer()))
	if err == nil && !view.Member() {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	kinds := numbers[int32](request.GetKinds())
	page, err := store.MessagePage(view, request, func(first, last ids.Seq, backward bool, limit int, take func(*historyv1.StoredMessage, int) bool) error {
		query := selectMessagesRising
		if backward {
			query = selectMessagesFalling
		}
		return each(ctx, tx, func(rows pgx.Rows) (bool, error) {
			message, size, err := scanMessage(rows)
			return err == nil && take(message, size), err
		}, query, string(id), uint64(first), uint64(last), kinds, limit)
	})
	if err != nil {
		return nil, err
	}
	return page, store.AddReactions(page.GetMessages(), func(add func(uint64, *historyv1.ReactionCount)) error {
		seqs := make([]int64, len(page.GetMessages()))
		for i, message := range page.GetMessages() {
			seqs[i] = int64(message.GetEvent().GetSeq())
		}
		return each(ctx, tx, func(rows pgx.Rows) (bool, error) {
			var target uint64
			count := &historyv1.ReactionCount{}
			err := rows.Scan(&target, &count.Emoji, &count.Count, &count.Mine)
			add(target, count)
			return true, err
		}, selectCounts, string(id), seqs, request.GetViewer())
	})
}

// scanMessage scans a message with its view row and its newest edit.
func scanMessage(rows pgx.Rows) (*historyv1.StoredMessage, int, error) {
	event, edit := &conversationv1.Event{}, &conversationv1.Event{}
	var row store.ViewRow
	var kind int32
	var editKind, format pgtype.Int4
	var timeMs pgtype.Int8
	var sender, command pgtype.Text
	var previous, editPrevious []byte
	dest := append(append(eventDest(event, &kind), &previous), row.Dest()...)
	if err := rows.Scan(append(dest, &timeMs, &sender, &command, &editKind, &format, &edit.Body, &edit.Salt, &edit.Commitment,
		&edit.Hash, &edit.HeaderExtra, &editPrevious)...); err != nil {
		return nil, 0, err
	}
	found := finish(event, kind)
	if err := store.Link(event, previous); err != nil {
		return nil, 0, err
	}
	message := &historyv1.StoredMessage{Event: event, Row: row.Row()}
	if timeMs.Valid {
		edit.ConversationId, edit.Seq, edit.TimeMs, edit.Sender = event.GetConversationId(), uint64(row.EditSeq()), timeMs.Int64, sender.String
		edit.CommandId, edit.Format = command.String, uint32(format.Int32)
		found.size += finish(edit, editKind.Int32).size
		if err := store.Link(edit, editPrevious); err != nil {
			return nil, 0, err
		}
		message.Edit = edit
	}
	return message, found.size, nil
}

// ReplaceViews replaces the views of a conversation. It locks the conversation's row, so that no append happens
// meanwhile.
func (s *Store) ReplaceViews(ctx context.Context, id ids.Conversation, head ids.Seq, rows []*historyv1.MessageRow, reactions []*historyv1.Reaction) (bool, error) {
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			var present ids.Seq
			if err := tx.QueryRow(ctx, lockHead, string(id)).Scan((*uint64)(&present)); err != nil && !errors.Is(err, pgx.ErrNoRows) {
				return err
			}
			if present != head {
				return store.ErrSeqTaken
			}
			sql := &pgx.Batch{}
			sql.Queue("DELETE FROM message_views WHERE conversation_id = $1", string(id))
			sql.Queue("DELETE FROM reactions WHERE conversation_id = $1", string(id))
			for _, row := range rows {
				queueMessage(sql, id, row)
			}
			for _, reaction := range reactions {
				queueReaction(sql, id, reaction)
			}
			return tx.SendBatch(ctx, sql).Close()
		})
	})
	if errors.Is(err, store.ErrSeqTaken) {
		return false, nil
	}
	return err == nil, wrap("replace the views of "+string(id), err)
}

// ConversationIDs returns a page of ids.
func (s *Store) ConversationIDs(ctx context.Context, after ids.Conversation) ([]string, error) {
	var list []string
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		var id string
		err := rows.Scan(&id)
		list = append(list, id)
		return true, err
	}, selectIDs, string(after), store.MaxPage)
	return list, wrap("list conversations", err)
}
