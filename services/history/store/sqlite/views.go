package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// viewReads read the views.
type viewReads struct {
	facts, reactions, rising, falling, counts, conversations *sql.Stmt
}

const (
	// rowColumns are the columns of a message's view row. If the message has no view row, all but the first are NULL.
	rowColumns     = "m.seq, m.edit_seq, m.edit_time_ms, m.deleted_seq, m.replies, m.last_reply_seq"
	joinRow        = " LEFT JOIN message_views AS m ON m.conversation_id = e.conversation_id AND m.seq = e.seq"
	selectMessages = "SELECT " + eventColumns + ", " + previousHash + ", " + rowColumns + ", " +
		"d.time_ms, d.sender, d.command_id, d.kind, d.format, d.body, d.salt, d.commitment, d.hash, d.header_extra, " +
		"(SELECT p.hash FROM events AS p WHERE p.conversation_id = d.conversation_id AND p.seq = d.seq - 1) FROM events AS e" + joinRow +
		" LEFT JOIN events AS d ON d.conversation_id = e.conversation_id AND d.seq = m.edit_seq" +
		" WHERE e.conversation_id = ?1 AND e.seq BETWEEN (?2 + 0) AND (?3 + 0) AND e.kind IN (SELECT value FROM json_each(?4))"
)

func (s *viewReads) prepare(p *preparer) {
	// CROSS JOIN makes SQLite start with the list of needs instead of the table.
	const needs = ` FROM json_each(?) AS n CROSS JOIN `
	s.facts = p.stmt("SELECT n.key, e.kind, e.sender, e.time_ms, e.body IS NULL, " + rowColumns + needs +
		"events AS e ON e.conversation_id = json_extract(n.value, '$[0]') AND e.seq = json_extract(n.value, '$[1]')" + joinRow + " ORDER BY n.key")
	s.reactions = p.stmt("SELECT n.key, r.target, r.user_id, r.emoji, r.seq" + needs + `reactions AS r ON r.conversation_id = json_extract(n.value, '$[0]')
		AND r.target = json_extract(n.value, '$[1]') AND r.user_id = json_extract(n.value, '$[2]') ORDER BY n.key, r.seq`)
	s.rising = p.stmt(selectMessages + " ORDER BY e.seq LIMIT (?5 + 0)")
	s.falling = p.stmt(selectMessages + " ORDER BY e.seq DESC LIMIT (?5 + 0)")
	s.counts = p.stmt(`SELECT target, emoji, count(*) AS n, max(user_id = ?3) FROM reactions
		WHERE conversation_id = ?1 AND target IN (SELECT value FROM json_each(?2)) GROUP BY target, emoji ORDER BY target, n DESC, emoji`)
	s.conversations = p.stmt("SELECT conversation_id FROM conversations WHERE conversation_id > (? || '') ORDER BY conversation_id LIMIT (? + 0)")
}

// Facts returns the facts about messages. Both queries see the same data: only the owner of the partition, which is the
// caller, appends to it.
func (s *Store) Facts(ctx context.Context, needs []*historyv1.Need) ([]*historyv1.Fact, error) {
	list := make([][3]any, len(needs))
	users := false
	for i, need := range needs {
		list[i] = [3]any{need.GetConversationId(), need.GetSeq(), need.GetUserId()}
		users = users || need.GetUserId() != ""
	}
	encoded, err := json.Marshal(list)
	if err != nil || len(needs) == 0 {
		return nil, err
	}
	facts := make([]*historyv1.Fact, 0, len(needs))
	byNeed := make(map[uint32]*historyv1.Fact, len(needs))
	err = each(ctx, s.read.views.facts, func(rows *sql.Rows) (bool, error) {
		fact, row, kind := &historyv1.Fact{}, store.ViewRow{}, int32(0)
		err := rows.Scan(append([]any{&fact.Need, &kind, &fact.Sender, &fact.TimeMs, &fact.Erased}, row.Dest()...)...)
		fact.Kind, fact.Row = conversationv1.EventKind(kind), row.Row()
		facts, byNeed[fact.GetNeed()] = append(facts, fact), fact
		return true, err
	}, string(encoded))
	if err == nil && users {
		err = each(ctx, s.read.views.reactions, func(rows *sql.Rows) (bool, error) {
			reaction, need := &historyv1.Reaction{}, uint32(0)
			err := rows.Scan(&need, &reaction.Target, &reaction.UserId, &reaction.Emoji, &reaction.Seq)
			if fact := byNeed[need]; fact != nil {
				fact.Reactions = append(fact.Reactions, reaction)
			}
			return true, err
		}, string(encoded))
	}
	return facts, wrap("read facts", err)
}

// ReadMessages returns a page of messages, in one read transaction.
func (s *Store) ReadMessages(ctx context.Context, request *historyv1.ReadMessagesRequest) (*historyv1.ReadMessagesResponse, error) {
	const tried = "read messages"
	tx, err := s.readers.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, wrap(tried, err)
	}
	defer func() { _ = tx.Rollback() }()
	id := ids.Conversation(request.GetConversationId())
	view, err := readView(ctx, tx.StmtContext(ctx, s.read.view), id, ids.User(request.GetViewer()))
	if err == nil && !view.Member() {
		err = store.ErrNotFound
	}
	if err != nil {
		return nil, answer(tried, err)
	}
	kinds := jsonNumbers(request.GetKinds())
	page, err := store.MessagePage(view, request, func(first, last ids.Seq, backward bool, limit int, take func(*historyv1.StoredMessage, int) bool) error {
		stmt := s.read.views.rising
		if backward {
			stmt = s.read.views.falling
		}
		return each(ctx, tx.StmtContext(ctx, stmt), func(rows *sql.Rows) (bool, error) {
			message, size, err := scanMessage(rows)
			return err == nil && take(message, size), err
		}, string(id), int64(first), int64(last), kinds, limit)
	})
	if err != nil {
		return nil, answer(tried, err)
	}
	err = store.AddReactions(page.GetMessages(), func(add func(uint64, *historyv1.ReactionCount)) error {
		seqs := make([]uint64, len(page.GetMessages()))
		for i, message := range page.GetMessages() {
			seqs[i] = message.GetEvent().GetSeq()
		}
		return each(ctx, tx.StmtContext(ctx, s.read.views.counts), func(rows *sql.Rows) (bool, error) {
			var target uint64
			count := &historyv1.ReactionCount{}
			err := rows.Scan(&target, &count.Emoji, &count.Count, &count.Mine)
			add(target, count)
			return true, err
		}, string(id), jsonNumbers(seqs), request.GetViewer())
	})
	return page, wrap(tried, err)
}

// scanMessage scans a message with its view row and its newest edit.
func scanMessage(rows *sql.Rows) (*historyv1.StoredMessage, int, error) {
	var row store.ViewRow
	var kind, format sql.NullInt32
	var timeMs sql.NullInt64
	var sender sql.NullString
	var command, previous []byte
	edit := &conversationv1.Event{}
	found, err := scanLinked(rows, append(row.Dest(), &timeMs, &sender, &command, &kind, &format, &edit.Body, &edit.Salt, &edit.Commitment,
		&edit.Hash, &edit.HeaderExtra, &previous)...)
	if err != nil {
		return nil, 0, err
	}
	message := &historyv1.StoredMessage{Event: found.event, Row: row.Row()}
	if timeMs.Valid {
		edit.ConversationId, edit.Seq, edit.TimeMs, edit.Sender = found.event.GetConversationId(), uint64(row.EditSeq()), timeMs.Int64, sender.String
		edit.CommandId, edit.Kind, edit.Format = store.EncodeCommandID(command), conversationv1.EventKind(kind.Int32), uint32(format.Int32)
		store.Complete(edit)
		if err := store.Link(edit, previous); err != nil {
			return nil, 0, err
		}
		message.Edit = edit
	}
	return message, found.size + len(edit.GetBody()), nil
}

// ReplaceViews replaces the views of a conversation in one write, so no append happens meanwhile.
func (s *Store) ReplaceViews(ctx context.Context, id ids.Conversation, head ids.Seq, rows []*historyv1.MessageRow, reactions []*historyv1.Reaction) (bool, error) {
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		views := &w.statements.views
		var present ids.Seq
		if err := views.lockHead.QueryRowContext(ctx, string(id)).Scan((*uint64)(&present)); err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if present != head {
			return store.ErrSeqTaken
		}
		if _, err := views.clearMessages.ExecContext(ctx, string(id)); err != nil {
			return err
		}
		if _, err := views.clearReactions.ExecContext(ctx, string(id)); err != nil {
			return err
		}
		for _, row := range rows {
			if err := views.putMessage(ctx, id, row); err != nil {
				return err
			}
		}
		for _, reaction := range reactions {
			if err := views.putReaction(ctx, id, reaction); err != nil {
				return err
			}
		}
		return nil
	}, nil)
	if errors.Is(err, store.ErrSeqTaken) {
		return false, nil
	}
	return err == nil, wrap("replace the views of "+string(id), err)
}

// ConversationIDs returns a page of ids.
func (s *Store) ConversationIDs(ctx context.Context, after ids.Conversation) ([]string, error) {
	var list []string
	err := each(ctx, s.read.views.conversations, func(rows *sql.Rows) (bool, error) {
		var id string
		err := rows.Scan(&id)
		list = append(list, id)
		return true, err
	}, string(after), store.MaxPage)
	return list, wrap("list conversations", err)
}
