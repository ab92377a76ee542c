package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	selectWatermark = "SELECT stream, epoch, sequence, time_ns FROM partitions WHERE partition = ?"
	eventColumns    = "e.conversation_id, e.seq, e.time_ms, e.sender, e.command_id, e.kind, e.format, e.body, e.salt, e.commitment, e.hash, e.header_extra"
	// previousHash is the hash of the preceding row, for events that are read alone; it is NULL if that row is missing.
	previousHash  = "(SELECT p.hash FROM events AS p WHERE p.conversation_id = e.conversation_id AND p.seq = e.seq - 1)"
	selectRange   = "SELECT " + eventColumns + " FROM events AS e WHERE conversation_id = ? AND seq BETWEEN (? + 0) AND (? + 0)"
	selectCommand = "SELECT " + eventColumns + ", " + previousHash + " FROM events AS e WHERE command_id = ? AND conversation_id = ? AND sender = ?"
	// A cursor that was never saved is all zeros.
	selectCursor = "coalesce(cursors.delivered_seq, 0), coalesce(cursors.delivered_time_ms, 0), coalesce(cursors.read_seq, 0), coalesce(cursors.read_time_ms, 0)"
	// Nobody leaves a direct conversation, so left_seq of the peer need not be checked.
	selectList = `SELECT conversations.conversation_id, kind, name, head, members, joined_seq,
			iif(kind = ?, (SELECT peer.user_id FROM memberships AS peer
				WHERE peer.conversation_id = memberships.conversation_id AND peer.user_id <> memberships.user_id LIMIT 1), NULL),
			` + selectCursor + `
		FROM memberships JOIN conversations USING (conversation_id)
		LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
		WHERE memberships.user_id = ? AND left_seq IS NULL AND memberships.conversation_id > (? || '')`
	listOrder = " ORDER BY memberships.conversation_id LIMIT (? + 0)"
)

// readStatements are the queries, prepared on the pool. Each query is one statement, and therefore one snapshot.
// Parameters of ranges and limits are written as expressions like (? + 0). To choose a plan, SQLite reads the value of a
// bare parameter, and therefore prepares the statement again for every call. That took four fifths of the time of a short
// query.
type readStatements struct {
	watermark, command, rising, falling, head, view, states, heads, list, listNamed, members, member *sql.Stmt

	listLeases, listWorkers, deadLetters, deadLetter, revoked, revocations, revocation *sql.Stmt

	memberships membershipReads
	comparison  comparisonReads
	views       viewReads
	feed        feedReads
	other       otherReads
}

func prepareReads(p *preparer) (readStatements, error) {
	s := readStatements{
		watermark: p.stmt(selectWatermark),
		command:   p.stmt(selectCommand),
		rising:    p.stmt(selectRange + " ORDER BY seq LIMIT (? + 0)"),
		falling:   p.stmt(selectRange + " ORDER BY seq DESC LIMIT (? + 0)"),
		head:      p.stmt("SELECT head FROM conversations WHERE conversation_id = ?"),
		view: p.stmt(`SELECT joined_seq, left_seq, head FROM memberships JOIN conversations USING (conversation_id)
			WHERE conversation_id = ? AND user_id = ? ORDER BY joined_seq`),
		states: p.stmt(`SELECT conversations.conversation_id, kind, name, name_seq, name_sender, name_time_ms, creator, head, head_hash, members, memberships.user_id, memberships.joined_seq, ` + selectCursor + `
			FROM conversations
			LEFT JOIN memberships ON memberships.conversation_id = conversations.conversation_id AND left_seq IS NULL
			LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
			WHERE conversations.conversation_id IN (SELECT value FROM json_each(?))
			ORDER BY conversations.conversation_id, memberships.user_id`),
		heads:     p.stmt("SELECT conversation_id, head, head_hash FROM conversations WHERE conversation_id IN (SELECT value FROM json_each(?))"),
		list:      p.stmt(selectList + listOrder),
		listNamed: p.stmt(selectList + " AND memberships.conversation_id IN (SELECT value FROM json_each(?))" + listOrder),
		members: p.stmt(`SELECT memberships.user_id, joined_seq, ` + selectCursor + `
			FROM memberships LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
			WHERE memberships.conversation_id = ? AND memberships.user_id > (? || '') AND left_seq IS NULL
			ORDER BY memberships.user_id LIMIT (? + 0)`),
		member: p.stmt("SELECT 1 FROM memberships WHERE user_id = ? AND conversation_id = ? AND left_seq IS NULL"),

		listLeases:  p.stmt("SELECT partition, worker, until_ms, wanted, stream, epoch, sequence, time_ns FROM leases JOIN partitions USING (partition) ORDER BY partition"),
		listWorkers: p.stmt("SELECT worker, seen_until_ms - ?1 FROM workers WHERE seen_until_ms > ?1 ORDER BY worker"),
		deadLetters: p.stmt(`SELECT partition, stream, sequence, reason, time_ms, length(payload) FROM dead_letters
			WHERE (partition, stream, sequence) > (?, ?, ?) AND partition <= (? + 0) ORDER BY partition, stream, sequence LIMIT (? + 0)`),
		deadLetter:  p.stmt("SELECT reason, time_ms, payload FROM dead_letters WHERE partition = ? AND stream = ? AND sequence = ?"),
		revoked:     p.stmt("SELECT before_ms FROM revocations WHERE user_id = ?"),
		revocations: p.stmt("SELECT user_id, before_ms FROM revocations WHERE before_ms > (? + 0) ORDER BY before_ms LIMIT (? + 0)"),
		revocation:  p.stmt("SELECT user_id, before_ms FROM revocations WHERE user_id = ? AND before_ms > (? + 0)"),
	}
	s.memberships.prepare(p)
	s.comparison.prepare(p)
	s.views.prepare(p)
	s.feed.prepare(p)
	s.other.prepare(p)
	return s, p.err
}

// each runs a query and calls row for every row, until it returns false.
func each(ctx context.Context, stmt *sql.Stmt, row func(*sql.Rows) (bool, error), args ...any) (err error) {
	rows, err := stmt.QueryContext(ctx, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if more, err := row(rows); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

type scanner interface{ Scan(dest ...any) error }

// stored is an event with the size of its body in the table.
type stored struct {
	event *conversationv1.Event
	size  int
}

// scanEvent scans a row that contains eventColumns, then the columns of after. The event has no previous hash yet.
func scanEvent(row scanner, after ...any) (stored, error) {
	event := &conversationv1.Event{}
	var kind int32
	var command []byte
	err := row.Scan(append([]any{
		&event.ConversationId, &event.Seq, &event.TimeMs, &event.Sender, &command, &kind, &event.Format, &event.Body,
		&event.Salt, &event.Commitment, &event.Hash, &event.HeaderExtra,
	}, after...)...)
	if err != nil {
		return stored{}, err
	}
	event.Kind, event.CommandId = conversationv1.EventKind(kind), store.EncodeCommandID(command)
	store.Complete(event)
	return stored{event, len(event.GetBody())}, nil
}

// scanLinked scans a row that contains eventColumns and previousHash, then the columns of after.
func scanLinked(row scanner, after ...any) (stored, error) {
	var previous []byte
	found, err := scanEvent(row, append([]any{&previous}, after...)...)
	if err == nil {
		err = store.Link(found.event, previous)
	}
	return found, err
}

func scanWatermark(row scanner) (*historyv1.Watermark, error) {
	w := &historyv1.Watermark{}
	err := row.Scan(&w.Stream, &w.Epoch, &w.Sequence, &w.TimeNs)
	return w, err
}

// Watermark returns the watermark of a partition.
func (s *Store) Watermark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error) {
	watermark, err := scanWatermark(s.read.watermark.QueryRowContext(ctx, uint32(partition)))
	return watermark, wrap(fmt.Sprintf("read the watermark of partition %d", partition), err)
}

// Conversations returns states. They come from one statement, except for the removed users.
func (s *Store) Conversations(ctx context.Context, conversations []string) ([]*historyv1.ConversationState, error) {
	var states []*historyv1.ConversationState
	members := 0
	err := each(ctx, s.read.states, func(rows *sql.Rows) (bool, error) {
		next := &historyv1.ConversationState{NameSource: &historyv1.SetName{}}
		var user sql.NullString
		var joined sql.NullInt64
		var kind int32
		var count int
		cursor := &conversationv1.Cursor{}
		if err := rows.Scan(&next.ConversationId, &kind, &next.Name, &next.NameSource.Seq, &next.NameSource.Sender, &next.NameSource.TimeMs,
			&next.Creator, &next.Head, &next.HeadHash, &count, &user, &joined,
			&cursor.DeliveredSeq, &cursor.DeliveredTimeMs, &cursor.ReadSeq, &cursor.ReadTimeMs); err != nil {
			return false, err
		}
		if n := len(states); n == 0 || states[n-1].GetConversationId() != next.GetConversationId() {
			if members += count; members > store.MaxStateMembers && n > 0 {
				return false, store.ErrTooLarge
			}
			next.Kind, next.NameSource.Name = conversationv1.Kind(kind), next.GetName()
			states = append(states, next)
		}
		if user.Valid {
			cursor.UserId = user.String
			state := states[len(states)-1]
			state.Members = append(state.Members, &historyv1.Member{JoinedSeq: uint64(joined.Int64), Cursor: cursor})
		}
		return true, nil
	}, jsonList(conversations))
	if err == nil {
		err = s.addRemoved(ctx, states, members)
	}
	return states, answer("read conversations", err)
}

// Commands returns the events of commands.
func (s *Store) Commands(ctx context.Context, keys []*historyv1.CommandKey) ([]*conversationv1.Event, error) {
	var events []*conversationv1.Event
	size := 0
	for _, key := range keys {
		id, _ := store.DecodeCommandID(key.GetCommandId())
		found, err := scanLinked(s.read.command.QueryRowContext(ctx, id[:], key.GetConversationId(), key.GetSender()))
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, answer("find commands", err)
		}
		if size += found.size; size > store.MaxCommandsBytes && len(events) > 0 {
			return nil, store.ErrTooLarge
		}
		events = append(events, found.event)
	}
	return events, nil
}

// Read returns a page of a log.
func (s *Store) Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	view, err := s.view(ctx, ids.Conversation(request.GetConversationId()), ids.User(request.GetViewer()))
	if err != nil {
		return nil, answer("read what the viewer may see", err)
	}
	response, err := store.Page(view, request, func(first, last ids.Seq, backward bool, limit int, take func(*conversationv1.Event, int) bool) error {
		stmt := s.read.rising
		if backward {
			stmt = s.read.falling
		}
		links := store.NewLinks(first, backward, take)
		err := each(ctx, stmt, func(rows *sql.Rows) (bool, error) {
			found, err := scanEvent(rows)
			if err != nil {
				return false, err
			}
			return links.Row(found.event, found.size)
		}, request.GetConversationId(), int64(links.From()), int64(last), links.Rows(limit))
		if err != nil {
			return err
		}
		return links.End()
	})
	return response, answer("read events of "+request.GetConversationId(), err)
}

func (s *Store) view(ctx context.Context, id ids.Conversation, viewer ids.User) (view store.View, err error) {
	if viewer == "" {
		var head ids.Seq
		if err = s.read.head.QueryRowContext(ctx, string(id)).Scan((*uint64)(&head)); errors.Is(err, sql.ErrNoRows) {
			err = store.ErrNotFound
		}
		return store.Whole(head), err
	}
	return readView(ctx, s.read.view, id, viewer)
}

func readView(ctx context.Context, stmt *sql.Stmt, id ids.Conversation, viewer ids.User) (view store.View, err error) {
	err = each(ctx, stmt, func(rows *sql.Rows) (bool, error) {
		var joined, head uint64
		var left *uint64
		err := rows.Scan(&joined, &left, &head)
		view.Admit(ids.Seq(joined), (*ids.Seq)(left), ids.Seq(head))
		return err == nil, err
	}, string(id), string(viewer))
	if err == nil && view.Empty() {
		err = store.ErrNotFound
	}
	return view, err
}

// Heads returns the newest seq of conversations.
func (s *Store) Heads(ctx context.Context, conversations []string) ([]*historyv1.Head, error) {
	heads := make([]*historyv1.Head, 0, len(conversations))
	err := each(ctx, s.read.heads, func(rows *sql.Rows) (bool, error) {
		head := &historyv1.Head{}
		heads = append(heads, head)
		return true, rows.Scan(&head.ConversationId, &head.Head, &head.HeadHash)
	}, jsonList(conversations))
	return heads, wrap("read heads", err)
}

// ListConversations returns a page of a user's conversations.
func (s *Store) ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error) {
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListConversationsResponse{}
	stmt, args := s.read.list, []any{int32(conversationv1.Kind_KIND_DIRECT), request.GetUserId(), request.GetAfter()}
	if named := request.GetConversationIds(); len(named) > 0 {
		stmt, args = s.read.listNamed, append(args, jsonList(named))
	}
	err := each(ctx, stmt, func(rows *sql.Rows) (bool, error) {
		if response.More = len(response.GetConversations()) == limit; response.GetMore() {
			return false, nil
		}
		summary := &historyv1.Summary{Cursor: &conversationv1.Cursor{UserId: request.GetUserId()}}
		var kind int32
		var peer sql.NullString
		err := rows.Scan(&summary.ConversationId, &kind, &summary.Name, &summary.Head, &summary.Members, &summary.JoinedSeq, &peer,
			&summary.Cursor.DeliveredSeq, &summary.Cursor.DeliveredTimeMs, &summary.Cursor.ReadSeq, &summary.Cursor.ReadTimeMs)
		summary.Kind, summary.Peer = conversationv1.Kind(kind), peer.String
		response.Conversations = append(response.Conversations, summary)
		return true, err
	}, append(args, limit+1)...)
	if err == nil {
		err = s.read.revoked.QueryRowContext(ctx, request.GetUserId()).Scan(&response.RevokedBeforeMs)
		if errors.Is(err, sql.ErrNoRows) {
			err = nil
		}
	}
	if err == nil && request.GetEndedSinceMs() > 0 {
		response.Ended, err = s.listEnded(ctx, request)
	}
	return response, wrap("list conversations", err)
}

// ListMembers returns a page of the current members.
func (s *Store) ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error) {
	if err := s.mayList(ctx, ids.Conversation(request.GetConversationId()), ids.User(request.GetViewer())); err != nil {
		return nil, answer("look for the viewer among the members", err)
	}
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListMembersResponse{}
	err := each(ctx, s.read.members, func(rows *sql.Rows) (bool, error) {
		if response.More = len(response.GetMembers()) == limit; response.GetMore() {
			return false, nil
		}
		member := &historyv1.Member{Cursor: &conversationv1.Cursor{}}
		response.Members = append(response.Members, member)
		return true, rows.Scan(&member.Cursor.UserId, &member.JoinedSeq,
			&member.Cursor.DeliveredSeq, &member.Cursor.DeliveredTimeMs, &member.Cursor.ReadSeq, &member.Cursor.ReadTimeMs)
	}, request.GetConversationId(), request.GetAfter(), limit+1)
	return response, wrap("list members", err)
}

func (s *Store) mayList(ctx context.Context, id ids.Conversation, viewer ids.User) error {
	var found int64
	stmt, args := s.read.head, []any{string(id)}
	if viewer != "" {
		stmt, args = s.read.member, []any{string(viewer), string(id)}
	}
	if err := stmt.QueryRowContext(ctx, args...).Scan(&found); errors.Is(err, sql.ErrNoRows) {
		return store.ErrNotFound
	} else if err != nil {
		return err
	}
	return nil
}

// answer returns an answer of the store unchanged, and wraps a failure of the database.
func answer(tried string, err error) error {
	if store.IsAnswer(err) {
		return err
	}
	return wrap(tried, err)
}

// jsonList returns a list of ids as one parameter, so that one prepared statement accepts any number of ids.
func jsonList(conversations []string) string {
	list, err := json.Marshal(conversations)
	if err != nil || len(conversations) == 0 { // encoding strings never fails
		return "[]"
	}
	return string(list)
}
