package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// What runnel_require was asked for, and names of keys: by them a refusal is told from a failure.
const (
	requireWatermark = "watermark"
	requireHeads     = "heads"
	requireMember    = "member"

	codeRequired       = "RN001"
	codeUnique         = "23505"
	keyMembership      = "memberships_pkey"
	keyPresentMembers  = "memberships_present"
	moveWatermark      = `WITH moved AS (UPDATE partitions SET stream = $1, sequence = $2, time_ns = $3 WHERE partition = $4`
	onExpected         = ` AND stream = $5 AND sequence = $6`
	returningWatermark = ` RETURNING 1) SELECT runnel_require(count(*) = 1, '` + requireWatermark + `') FROM moved`

	moveHeads = `WITH moved AS (
		UPDATE conversations SET head = v.head, head_hash = v.hash
		FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bigint[]) AS v (id, head, hash, before)
		WHERE conversation_id = v.id AND conversations.head = v.before RETURNING 1)
		SELECT runnel_require(count(*) = $5, '` + requireHeads + `') FROM moved`
	insertConversation = `INSERT INTO conversations (conversation_id, kind, name, creator, head, head_hash, members, created_time_ms)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	insertEvents = `INSERT INTO events (conversation_id, seq, time_ms, sender, command_id, kind, body, salt, prev_hash, hash)
		SELECT unnest($1::text[]), unnest($2::bigint[]), unnest($3::bigint[]), unnest($4::text[]), unnest($5::uuid[]), unnest($6::int[]),
			unnest($7::bytea[]), unnest($8::bytea[]), unnest($9::bytea[]), unnest($10::bytea[])`
	alterConversation = `UPDATE conversations SET name = coalesce($1, name), members = members + $2 WHERE conversation_id = $3`
	beginMemberships  = `INSERT INTO memberships (conversation_id, user_id, joined_seq) SELECT $1, unnest($2::text[]), $3`
	endMembership     = `WITH ended AS (UPDATE memberships SET left_seq = $1 WHERE conversation_id = $2 AND user_id = $3 AND left_seq IS NULL RETURNING 1)
		SELECT runnel_require(count(*) = 1, '` + requireMember + `') FROM ended`
	insertDeadLetter = `INSERT INTO dead_letters (partition, stream, sequence, reason, payload) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (partition, stream, sequence) DO UPDATE SET reason = excluded.reason, payload = excluded.payload, time = excluded.time`
	selectDuplicates = `SELECT ordinality - 1, ` + eventColumns + ` FROM unnest($1::uuid[], $2::text[], $3::text[])
		WITH ORDINALITY AS v (command_id, conversation_id, sender, ordinality)
		JOIN events USING (command_id, conversation_id, sender) ORDER BY ordinality`
)

// Append commits a batch in one round trip: its statements are sent at once and, as nothing but the end of the sending
// commits them, the first that fails takes back all. Only a refused batch costs more.
func (s *Store) Append(ctx context.Context, request *historyv1.AppendRequest) ([]*historyv1.Duplicate, error) {
	batch, err := store.Plan(request)
	if err != nil {
		return nil, err
	}
	tried := fmt.Sprintf("append to partition %d", request.GetPartition())
	err = s.send(ctx, statements(batch))
	var failed *pgconn.PgError
	if err == nil || !errors.As(err, &failed) {
		return nil, wrap(tried, err)
	}
	switch {
	case failed.Code == codeRequired && failed.Message == requireWatermark:
		present, err := s.Watermark(ctx, request.GetPartition())
		if err != nil {
			return nil, err
		}
		return nil, &store.WatermarkError{Partition: request.GetPartition(), Present: present}
	case failed.Code == codeRequired && failed.Message == requireMember:
		return nil, store.Invalid("events", "end the membership of somebody who is not a member")
	case failed.Code == codeUnique && (failed.ConstraintName == keyMembership || failed.ConstraintName == keyPresentMembers):
		return nil, store.Invalid("events", "make somebody a member who is one already")
	case failed.Code == codeRequired && failed.Message == requireHeads, failed.Code == codeUnique:
		return s.explain(ctx, batch)
	}
	return nil, wrap(tried, err)
}

func (s *Store) send(ctx context.Context, batch *pgx.Batch) error {
	return s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		results := conn.SendBatch(ctx, batch)
		for range batch.Len() {
			if _, err := results.Exec(); err != nil {
				_ = results.Close() // says the same again
				return err
			}
		}
		return results.Close() // the commit
	})
}

// statements is the append as SQL. Order matters: the watermark is the law, so it comes first, and its row is the lock
// that makes the appends of a partition follow each other.
func statements(batch *store.Batch) *pgx.Batch {
	sql := &pgx.Batch{}
	expected, next := batch.GetExpected(), batch.GetNext()
	if store.BugNoWatermarkCheck {
		sql.Queue(moveWatermark+returningWatermark, next.GetStream(), next.GetSequence(), next.GetTimeNs(), batch.GetPartition())
	} else {
		sql.Queue(moveWatermark+onExpected+returningWatermark, next.GetStream(), next.GetSequence(), next.GetTimeNs(),
			batch.GetPartition(), expected.GetStream(), expected.GetSequence())
	}
	queueConversations(sql, batch)
	queueEvents(sql, batch)
	for i := range batch.Changes {
		if change := &batch.Changes[i]; !change.Creates() && (change.Renamed || change.Members != 0) {
			sql.Queue(alterConversation, pgtype.Text{String: change.Name, Valid: change.Renamed}, change.Members, change.ID)
		}
	}
	for _, membership := range batch.Memberships {
		if membership.Left != "" {
			sql.Queue(endMembership, membership.Seq, membership.ConversationID, membership.Left)
		} else {
			sql.Queue(beginMemberships, membership.ConversationID, membership.Joined, membership.Seq)
		}
	}
	for _, letter := range batch.GetDeadLetters() {
		payload := letter.GetPayload()
		if payload == nil {
			payload = []byte{}
		}
		sql.Queue(insertDeadLetter, batch.GetPartition(), next.GetStream(), letter.GetSequence(), letter.GetReason(), payload)
	}
	return sql
}

func queueConversations(sql *pgx.Batch, batch *store.Batch) {
	n := len(batch.Changes)
	ids, heads, hashes, befores := make([]string, 0, n), make([]int64, 0, n), make([][]byte, 0, n), make([]int64, 0, n)
	for i := range batch.Changes {
		change := &batch.Changes[i]
		if change.Creates() {
			sql.Queue(insertConversation, change.ID, int32(change.Kind), change.Name, change.Creator, change.Last, change.Hash,
				change.Members, change.CreatedMs)
			continue
		}
		ids, heads = append(ids, change.ID), append(heads, int64(change.Last))
		hashes, befores = append(hashes, change.Hash), append(befores, int64(change.First-1))
	}
	if len(ids) > 0 {
		sql.Queue(moveHeads, ids, heads, hashes, befores, len(ids))
	}
}

func queueEvents(sql *pgx.Batch, batch *store.Batch) {
	n := len(batch.Rows)
	if n == 0 {
		return
	}
	ids, senders, commands := keys(batch)
	seqs, times, kinds := make([]int64, n), make([]int64, n), make([]int32, n)
	bodies, salts, prevs, hashes := make([][]byte, n), make([][]byte, n), make([][]byte, n), make([][]byte, n)
	for i := range batch.Rows {
		row := &batch.Rows[i]
		seqs[i], times[i], kinds[i] = int64(row.GetSeq()), row.GetTimeMs(), int32(row.GetKind())
		bodies[i], salts[i], prevs[i], hashes[i] = row.Body, row.GetSalt(), row.GetPrevHash(), row.GetHash()
	}
	sql.Queue(insertEvents, ids, seqs, times, senders, commands, kinds, bodies, salts, prevs, hashes)
}

func keys(batch *store.Batch) (ids, senders []string, commands []pgtype.UUID) {
	n := len(batch.Rows)
	ids, senders, commands = make([]string, n), make([]string, n), make([]pgtype.UUID, n)
	for i := range batch.Rows {
		row := &batch.Rows[i]
		ids[i], senders[i], commands[i] = row.GetConversationId(), row.GetSender(), pgtype.UUID{Bytes: row.CommandID, Valid: true}
	}
	return ids, senders, commands
}

// explain says why an append clashed: with commands that were committed before, with itself, or with a head.
func (s *Store) explain(ctx context.Context, batch *store.Batch) ([]*historyv1.Duplicate, error) {
	var duplicates []*historyv1.Duplicate
	if !store.BugNoUniqueKey {
		ids, senders, commands := keys(batch)
		err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
			var index int64
			found, err := scanEvent(rows, &index)
			if err != nil {
				return false, err
			}
			duplicates = append(duplicates, &historyv1.Duplicate{Index: uint32(index), First: found.event})
			return true, nil
		}, selectDuplicates, commands, ids, senders)
		if err != nil {
			return nil, wrap("look for duplicates", err)
		}
	}
	if len(duplicates) > 0 {
		return duplicates, nil
	}
	if err := batch.Repeated(); err != nil {
		return nil, err
	}
	return nil, store.ErrSeqTaken
}

const saveCursors = `INSERT INTO cursors AS present (conversation_id, user_id, delivered_seq, delivered_time_ms, read_seq, read_time_ms)
	SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::bigint[]), unnest($5::bigint[]), unnest($6::bigint[])
	ON CONFLICT (conversation_id, user_id) DO UPDATE SET
		delivered_time_ms = CASE WHEN excluded.delivered_seq > present.delivered_seq THEN excluded.delivered_time_ms ELSE present.delivered_time_ms END,
		delivered_seq = greatest(excluded.delivered_seq, present.delivered_seq),
		read_time_ms = CASE WHEN excluded.read_seq > present.read_seq THEN excluded.read_time_ms ELSE present.read_time_ms END,
		read_seq = greatest(excluded.read_seq, present.read_seq)
	WHERE excluded.delivered_seq > present.delivered_seq OR excluded.read_seq > present.read_seq`

// SaveCursors moves cursors with one statement. Its rows are ordered (MergeCursors), so that two of them cannot each hold
// what the other waits for.
func (s *Store) SaveCursors(ctx context.Context, updates []*historyv1.CursorUpdate) error {
	merged := store.MergeCursors(updates)
	if len(merged) == 0 {
		return nil
	}
	n := len(merged)
	ids, users := make([]string, n), make([]string, n)
	delivered, deliveredMs, read, readMs := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, update := range merged {
		cursor := update.GetCursor()
		ids[i], users[i] = update.GetConversationId(), cursor.GetUserId()
		delivered[i], deliveredMs[i] = int64(cursor.GetDeliveredSeq()), cursor.GetDeliveredTimeMs()
		read[i], readMs[i] = int64(cursor.GetReadSeq()), cursor.GetReadTimeMs()
	}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, saveCursors, ids, users, delivered, deliveredMs, read, readMs)
		return err
	})
	return wrap("save cursors", err)
}
