package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/rpc"
	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// The queries. Each query is one statement, and therefore one snapshot.
const (
	eventColumns = "events.conversation_id, events.seq, events.time_ms, events.sender, events.command_id::text, events.kind, events.format, events.body, events.salt, events.commitment, events.hash, events.header_extra"
	// previousHash is the hash of the preceding row, for events that are read alone; it is NULL if that row is missing.
	previousHash = "(SELECT p.hash FROM events AS p WHERE p.conversation_id = events.conversation_id AND p.seq = events.seq - 1)"
	// A cursor that was never saved is all zeros.
	cursorColumns = "coalesce(cursors.delivered_seq, 0), coalesce(cursors.delivered_time_ms, 0), coalesce(cursors.read_seq, 0), coalesce(cursors.read_time_ms, 0)"

	selectWatermark = "SELECT stream, epoch, sequence, time_ns FROM partitions WHERE partition = $1"
	selectCommands  = "SELECT " + previousHash + ", " + eventColumns + ` FROM unnest($1::uuid[], $2::text[], $3::text[]) AS v (command_id, conversation_id, sender)
		JOIN events USING (command_id, conversation_id, sender)`
	selectRising  = "SELECT " + eventColumns + " FROM events WHERE conversation_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4"
	selectFalling = "SELECT " + eventColumns + " FROM events WHERE conversation_id = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq DESC LIMIT $4"
	selectHead    = "SELECT head FROM conversations WHERE conversation_id = $1"
	selectView    = `SELECT joined_seq, left_seq, head FROM memberships JOIN conversations USING (conversation_id)
		WHERE conversation_id = $1 AND user_id = $2 ORDER BY joined_seq`
	// present means left_seq IS NULL, in a form that does not match the partial index. While the table is small, the
	// planner would read that whole index, and would keep doing so after it has grown.
	present      = "coalesce(left_seq, 0) = 0"
	selectStates = `SELECT conversations.conversation_id, kind, name, name_seq, name_sender, name_time_ms, creator, head, head_hash, members, memberships.user_id, memberships.joined_seq, ` + cursorColumns + `
		FROM conversations
		LEFT JOIN memberships ON memberships.conversation_id = conversations.conversation_id AND ` + present + `
		LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
		WHERE conversations.conversation_id = ANY ($1::text[])
		ORDER BY conversations.conversation_id, memberships.user_id`
	selectHeads = "SELECT conversation_id, head, head_hash FROM conversations WHERE conversation_id = ANY ($1::text[])"
	// Nobody leaves a direct conversation, so left_seq of the peer need not be checked.
	selectList = `SELECT conversations.conversation_id, kind, name, head, members, joined_seq,
			CASE WHEN kind = $1 THEN (SELECT peer.user_id FROM memberships AS peer
				WHERE peer.conversation_id = memberships.conversation_id AND peer.user_id <> memberships.user_id LIMIT 1) END,
			` + cursorColumns + `
		FROM memberships JOIN conversations USING (conversation_id)
		LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
		WHERE memberships.user_id = $2 AND left_seq IS NULL AND memberships.conversation_id > $3`
	listOrder       = " ORDER BY memberships.conversation_id LIMIT $4"
	selectListAll   = selectList + listOrder
	selectListNamed = selectList + " AND memberships.conversation_id = ANY ($5::text[])" + listOrder
	// The memberships that ListConversationsRequest.ended_since_ms asks for.
	selectEndedMemberships = `SELECT conversation_id, joined_seq, left_seq FROM memberships
		WHERE user_id = $1 AND conversation_id = ANY ($2::text[]) AND left_seq IS NOT NULL AND $3::bigint <= (SELECT events.time_ms FROM events
			WHERE events.conversation_id = memberships.conversation_id AND events.seq = joined_seq)
		ORDER BY conversation_id, joined_seq LIMIT $4`
	selectMembers = `SELECT memberships.user_id, joined_seq, ` + cursorColumns + `
		FROM memberships LEFT JOIN cursors ON cursors.conversation_id = memberships.conversation_id AND cursors.user_id = memberships.user_id
		WHERE memberships.conversation_id = $1 AND memberships.user_id > $2 AND ` + present + `
		ORDER BY memberships.user_id LIMIT $3`
	selectMember = "SELECT 1 FROM memberships WHERE user_id = $1 AND conversation_id = $2 AND left_seq IS NULL"
	// The query always returns one row.
	selectRevoked = "SELECT coalesce((SELECT before_ms FROM revocations WHERE user_id = $1), 0)"
)

// each runs a query on a separate connection, and calls row for every row until it returns false.
func (s *Store) each(ctx context.Context, on lane, row func(pgx.Rows) (bool, error), query string, args ...any) error {
	return on(ctx, func(conn *pgxpool.Conn) error { return each(ctx, conn, row, query, args...) })
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func each(ctx context.Context, conn querier, row func(pgx.Rows) (bool, error), query string, args ...any) error {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	return until(rows, func() (bool, error) { return row(rows) })
}

// until calls row for every row until it returns false.
func until(rows pgx.Rows, row func() (bool, error)) error {
	for rows.Next() {
		if more, err := row(); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// every calls row for every row.
func every(rows pgx.Rows, row func() error) error {
	return until(rows, func() (bool, error) { return true, row() })
}

// change runs a statement that must change one row. If there is no such row, it returns none.
func (s *Store) change(ctx context.Context, tried string, none error, statement string, args ...any) error {
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		tag, err := conn.Exec(ctx, statement, args...)
		if err == nil && tag.RowsAffected() == 0 {
			return none
		}
		return err
	})
	return answer(tried, err)
}

// stored is an event with the size of its body in the table.
type stored struct {
	event *conversationv1.Event
	size  int
}

// scanEvent scans a row that contains the columns of before, then eventColumns. The event has no previous hash yet.
func scanEvent(row pgx.Row, before ...any) (stored, error) {
	event, kind := &conversationv1.Event{}, int32(0)
	if err := row.Scan(append(before, eventDest(event, &kind)...)...); err != nil {
		return stored{}, err
	}
	return finish(event, kind), nil
}

// scanLinked scans a row that contains the columns of before, then previousHash and eventColumns.
func scanLinked(row pgx.Row, before ...any) (stored, error) {
	var previous []byte
	found, err := scanEvent(row, append(before, &previous)...)
	if err == nil {
		err = store.Link(found.event, previous)
	}
	return found, err
}

// eventDest returns the scan destinations of eventColumns.
func eventDest(event *conversationv1.Event, kind *int32) []any {
	return []any{
		&event.ConversationId, &event.Seq, &event.TimeMs, &event.Sender, &event.CommandId, kind, &event.Format, &event.Body,
		&event.Salt, &event.Commitment, &event.Hash, &event.HeaderExtra,
	}
}

func finish(event *conversationv1.Event, kind int32) stored {
	event.Kind = conversationv1.EventKind(kind)
	store.Complete(event)
	return stored{event, len(event.GetBody())}
}

// Watermark returns the watermark of a partition.
func (s *Store) Watermark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error) {
	w := &historyv1.Watermark{}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, selectWatermark, uint32(partition)).Scan(&w.Stream, &w.Epoch, &w.Sequence, &w.TimeNs)
	})
	return w, wrap(fmt.Sprintf("read the watermark of partition %d", partition), err)
}

// Conversations returns states. One statement reads all states; another one reads the removed users.
func (s *Store) Conversations(ctx context.Context, conversations []string) ([]*historyv1.ConversationState, error) {
	var states []*historyv1.ConversationState
	members := 0
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		next := &historyv1.ConversationState{NameSource: &historyv1.SetName{}}
		var user *string
		var joined *uint64
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
		if user != nil {
			cursor.UserId = *user
			state := states[len(states)-1]
			state.Members = append(state.Members, &historyv1.Member{JoinedSeq: *joined, Cursor: cursor})
		}
		return true, nil
	}, selectStates, conversations)
	if err == nil {
		err = s.addRemoved(ctx, states, members)
	}
	return states, answer("read conversations", err)
}

// Commands returns the events of commands.
func (s *Store) Commands(ctx context.Context, keys []*historyv1.CommandKey) ([]*conversationv1.Event, error) {
	n := len(keys)
	conversations, senders, commands := make([]string, n), make([]string, n), make([]pgtype.UUID, n)
	for i, key := range keys {
		command, valid := store.DecodeCommandID(key.GetCommandId())
		conversations[i], senders[i], commands[i] = key.GetConversationId(), key.GetSender(), pgtype.UUID{Bytes: command, Valid: valid}
	}
	var events []*conversationv1.Event
	size := 0
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		found, err := scanLinked(rows)
		if err != nil {
			return false, err
		}
		if size += found.size; size > store.MaxCommandsBytes && len(events) > 0 {
			return false, store.ErrTooLarge
		}
		events = append(events, found.event)
		return true, nil
	}, selectCommands, commands, conversations, senders)
	return events, answer("find commands", err)
}

// Read returns a page of a log.
func (s *Store) Read(ctx context.Context, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	var response *historyv1.ReadResponse
	err := s.pool.reading(ctx, func(conn *pgxpool.Conn) error {
		view, err := view(ctx, conn, ids.Conversation(request.GetConversationId()), ids.User(request.GetViewer()))
		if err != nil {
			return err
		}
		response, err = store.Page(view, request, func(first, last ids.Seq, backward bool, limit int, take func(*conversationv1.Event, int) bool) error {
			query := selectRising
			if backward {
				query = selectFalling
			}
			links := store.NewLinks(first, backward, take)
			err := each(ctx, conn, func(rows pgx.Rows) (bool, error) {
				found, err := scanEvent(rows)
				if err != nil {
					return false, err
				}
				return links.Row(found.event, found.size)
			}, query, request.GetConversationId(), uint64(links.From()), uint64(last), links.Rows(limit))
			if err != nil {
				return err
			}
			return links.End()
		})
		return err
	})
	return response, answer("read events of "+request.GetConversationId(), err)
}

func view(ctx context.Context, conn querier, id ids.Conversation, viewer ids.User) (view store.View, err error) {
	if viewer == "" {
		var head ids.Seq
		if err = conn.QueryRow(ctx, selectHead, string(id)).Scan((*uint64)(&head)); errors.Is(err, pgx.ErrNoRows) {
			err = store.ErrNotFound
		}
		return store.Whole(head), err
	}
	err = each(ctx, conn, func(rows pgx.Rows) (bool, error) {
		var joined, head uint64
		var left *uint64
		err := rows.Scan(&joined, &left, &head)
		view.Admit(ids.Seq(joined), (*ids.Seq)(left), ids.Seq(head))
		return err == nil, err
	}, selectView, string(id), string(viewer))
	if err == nil && view.Empty() {
		err = store.ErrNotFound
	}
	return view, err
}

// Heads returns the newest seq of conversations.
func (s *Store) Heads(ctx context.Context, conversations []string) ([]*historyv1.Head, error) {
	heads := make([]*historyv1.Head, 0, len(conversations))
	err := s.each(ctx, s.pool.reading, func(rows pgx.Rows) (bool, error) {
		head := &historyv1.Head{}
		heads = append(heads, head)
		return true, rows.Scan(&head.ConversationId, &head.Head, &head.HeadHash)
	}, selectHeads, conversations)
	return heads, wrap("read heads", err)
}

// ListConversations returns a page of a user's conversations.
func (s *Store) ListConversations(ctx context.Context, request *historyv1.ListConversationsRequest) (*historyv1.ListConversationsResponse, error) {
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListConversationsResponse{}
	sql := &pgx.Batch{}
	query, args := selectListAll, []any{int32(conversationv1.Kind_KIND_DIRECT), request.GetUserId(), request.GetAfter(), limit + 1}
	if named := request.GetConversationIds(); len(named) > 0 {
		query, args = selectListNamed, append(args, named)
	}
	sql.Queue(query, args...).Query(func(rows pgx.Rows) error {
		return until(rows, func() (bool, error) {
			if response.More = len(response.GetConversations()) == limit; response.GetMore() {
				return false, nil
			}
			summary := &historyv1.Summary{Cursor: &conversationv1.Cursor{UserId: request.GetUserId()}}
			var kind int32
			var peer pgtype.Text
			err := rows.Scan(&summary.ConversationId, &kind, &summary.Name, &summary.Head, &summary.Members, &summary.JoinedSeq, &peer,
				&summary.Cursor.DeliveredSeq, &summary.Cursor.DeliveredTimeMs, &summary.Cursor.ReadSeq, &summary.Cursor.ReadTimeMs)
			summary.Kind, summary.Peer = conversationv1.Kind(kind), peer.String
			response.Conversations = append(response.Conversations, summary)
			return true, err
		})
	})
	sql.Queue(selectRevoked, request.GetUserId()).QueryRow(func(row pgx.Row) error { return row.Scan(&response.RevokedBeforeMs) })
	if since := request.GetEndedSinceMs(); since > 0 {
		sql.Queue(selectEndedMemberships, request.GetUserId(), request.GetConversationIds(), since, rpc.MaxItems).Query(func(rows pgx.Rows) error {
			return until(rows, func() (bool, error) {
				one := &historyv1.Membership{}
				response.Ended = append(response.Ended, one)
				return true, rows.Scan(&one.ConversationId, &one.JoinedSeq, &one.LeftSeq)
			})
		})
	}
	err := s.pool.reading(ctx, func(conn *pgxpool.Conn) error { return conn.SendBatch(ctx, sql).Close() })
	return response, wrap("list conversations", err)
}

// ListMembers returns a page of the current members.
func (s *Store) ListMembers(ctx context.Context, request *historyv1.ListMembersRequest) (*historyv1.ListMembersResponse, error) {
	limit := store.Limit(request.GetLimit())
	response := &historyv1.ListMembersResponse{}
	err := s.pool.reading(ctx, func(conn *pgxpool.Conn) error {
		if err := mayList(ctx, conn, ids.Conversation(request.GetConversationId()), ids.User(request.GetViewer())); err != nil {
			return err
		}
		return each(ctx, conn, func(rows pgx.Rows) (bool, error) {
			if response.More = len(response.GetMembers()) == limit; response.GetMore() {
				return false, nil
			}
			member := &historyv1.Member{Cursor: &conversationv1.Cursor{}}
			response.Members = append(response.Members, member)
			return true, rows.Scan(&member.Cursor.UserId, &member.JoinedSeq,
				&member.Cursor.DeliveredSeq, &member.Cursor.DeliveredTimeMs, &member.Cursor.ReadSeq, &member.Cursor.ReadTimeMs)
		}, selectMembers, request.GetConversationId(), request.GetAfter(), limit+1)
	})
	return response, answer("list members", err)
}

func mayList(ctx context.Context, conn *pgxpool.Conn, id ids.Conversation, viewer ids.User) error {
	var found int64
	query, args := selectHead, []any{string(id)}
	if viewer != "" {
		query, args = selectMember, []any{string(viewer), string(id)}
	}
	if err := conn.QueryRow(ctx, query, args...).Scan(&found); errors.Is(err, pgx.ErrNoRows) {
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
