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

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

// Texts that runnel_require raises, and names of keys. They distinguish a refusal from a failure.
const (
	requireWatermark = "watermark"
	requireHeads     = "heads"
	requireMember    = "member"

	codeRequired      = "RN001"
	codeUnique        = "23505"
	keyMembership     = "memberships_pkey"
	keyPresentMembers = "memberships_present"
	keyPosition       = "events_position"

	moveWatermark      = `WITH moved AS (UPDATE partitions SET stream = $1, epoch = $2, sequence = $3, time_ns = $4 WHERE partition = $5`
	onExpected         = ` AND stream = $6 AND epoch = $7 AND sequence = $8`
	returningWatermark = ` RETURNING 1) SELECT runnel_require(count(*) = 1, '` + requireWatermark + `') FROM moved`
	endEpoch           = "UPDATE epochs SET last_sequence = $1 WHERE partition = $2 AND epoch = $3"
	beginEpoch         = "INSERT INTO epochs (partition, epoch, stream) VALUES ($1, $2, $3)"

	alterConversation = `UPDATE conversations SET name = coalesce($1, name), name_seq = CASE WHEN $1 IS NULL THEN name_seq ELSE $2 END,
		name_sender = CASE WHEN $1 IS NULL THEN name_sender ELSE $3 END, name_time_ms = CASE WHEN $1 IS NULL THEN name_time_ms ELSE $4 END,
		members = members + $5 WHERE conversation_id = $6`
	beginMemberships = `INSERT INTO memberships (conversation_id, user_id, joined_seq, joined_epoch, joined_sequence) SELECT $1, unnest($2::text[]), $3, $4, $5`
	endMembership    = `WITH ended AS (UPDATE memberships SET left_seq = $1, left_epoch = $4, left_sequence = $5
		WHERE conversation_id = $2 AND user_id = $3 AND left_seq IS NULL RETURNING 1)
		SELECT runnel_require(count(*) = 1, '` + requireMember + `') FROM ended`
	insertRefusal = `INSERT INTO refusals AS present (partition, conversation_id, sender, command_id, attempt, commitment, code, message, field, time_ms)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (partition, conversation_id, sender, command_id) DO UPDATE SET attempt = excluded.attempt,
		commitment = excluded.commitment, code = excluded.code, message = excluded.message, field = excluded.field, time_ms = excluded.time_ms
		WHERE excluded.attempt > present.attempt OR excluded.time_ms > present.time_ms`
	dropRefusals = `DELETE FROM refusals WHERE (partition, conversation_id, sender, command_id) IN
		(SELECT partition, conversation_id, sender, command_id FROM refusals WHERE partition = $1 AND time_ms < $2 ORDER BY time_ms LIMIT $3)`
	insertDeadLetter = `INSERT INTO dead_letters (partition, stream, sequence, reason, payload) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (partition, stream, sequence) DO UPDATE SET reason = excluded.reason, payload = excluded.payload, time = excluded.time`
	selectDuplicates = `SELECT ordinality - 1, ` + previousHash + `, ` + eventColumns + ` FROM unnest($1::uuid[], $2::text[], $3::text[])
		WITH ORDINALITY AS v (command_id, conversation_id, sender, ordinality)
		JOIN events USING (command_id, conversation_id, sender) ORDER BY ordinality`
)

// setErasureTimeout sets the statement timeout for an append that erases. The setting lasts for the transaction.
var setErasureTimeout = fmt.Sprintf("SET LOCAL statement_timeout = %d", store.ErasureTimeout.Milliseconds())

// Append commits a batch. Most appends share a transaction with those of other partitions that arrive at the same time; see
// committer. The others, and those that could not be committed together, have a transaction of their own.
func (s *Store) Append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	batch, err := store.Plan(request)
	if err != nil {
		return nil, err
	}
	if !shareable(batch) {
		return s.appendAlone(ctx, batch)
	}
	switch err := s.committer.join(ctx, batch); {
	case errors.Is(err, errAlone):
		return s.appendAlone(ctx, batch)
	case err != nil:
		return nil, wrap(fmt.Sprintf("append to partition %d", batch.GetPartition()), err)
	}
	return &historyv1.AppendResponse{Epoch: batch.GetExpected().GetEpoch()}, nil
}

// appendAlone commits a batch in one round trip: all its statements are sent together. Only the end of the batch commits, so a
// statement that fails undoes all. A refused batch, or a batch that begins an epoch, takes more round trips.
func (s *Store) appendAlone(ctx context.Context, batch *store.Batch) (*historyv1.AppendResponse, error) {
	tried := fmt.Sprintf("append to partition %d", batch.GetPartition())
	epoch, err := s.epochOf(ctx, batch)
	if err != nil {
		return nil, wrap(tried, err)
	}
	err = s.send(ctx, statements(member{Batch: batch, epoch: epoch}))
	if err == nil && store.BugEffectsOutsideTransaction {
		effects := &pgx.Batch{}
		queueEffects(effects, batch)
		err = s.send(ctx, effects)
	}
	if err == nil {
		s.appended(ids.Partition(batch.GetPartition()))
		return &historyv1.AppendResponse{Epoch: uint64(epoch)}, nil
	}
	var failed *pgconn.PgError
	if !errors.As(err, &failed) {
		return nil, wrap(tried, err)
	}
	switch {
	case failed.Code == codeRequired && failed.Message == requireWatermark:
		present, err := s.Watermark(ctx, ids.Partition(batch.GetPartition()))
		if err != nil {
			return nil, err
		}
		return nil, &store.WatermarkError{Partition: ids.Partition(batch.GetPartition()), Present: present}
	case failed.Code == codeRequired && failed.Message == requireMember:
		return nil, store.Invalid("events", "end the membership of a user who is not a member")
	case failed.Code == codeUnique && (failed.ConstraintName == keyMembership || failed.ConstraintName == keyPresentMembers):
		return nil, store.Invalid("events", "make a user a member who already is one")
	case failed.Code == codeUnique && failed.ConstraintName == keyPosition:
		return s.explain(ctx, batch, store.ErrPosition)
	case failed.Code == codeRequired && failed.Message == requireHeads, failed.Code == codeUnique:
		return s.explain(ctx, batch, store.ErrSeqTaken)
	}
	return nil, wrap(tried, err)
}

// epochOf returns the epoch of a batch's positions. A new epoch needs the store's clock. The check of the watermark
// prevents two workers from beginning the same epoch.
func (s *Store) epochOf(ctx context.Context, batch *store.Batch) (ids.Epoch, error) {
	epoch := ids.Epoch(batch.GetExpected().GetEpoch())
	if store.BugNoWatermarkCheck {
		present, err := s.Watermark(ctx, ids.Partition(batch.GetPartition()))
		if err != nil {
			return 0, err
		}
		epoch = ids.Epoch(present.GetEpoch())
	}
	if epoch > 0 && (!batch.Begins() || store.BugPositionReused) {
		return epoch, nil
	}
	var nowMs int64
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error { return conn.QueryRow(ctx, "SELECT "+clockMs).Scan(&nowMs) })
	return store.NextEpoch(epoch, nowMs), err
}

// send runs the statements of appends in one transaction.
func (s *Store) send(ctx context.Context, batch *pgx.Batch) error {
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		results := conn.SendBatch(ctx, batch)
		for range batch.Len() {
			if _, err := results.Exec(); err != nil {
				_ = results.Close() // returns the same error again
				return err
			}
		}
		return results.Close() // waits for the commit
	})
	if err == nil {
		s.commits.Add(1)
	}
	return err
}

// member is an append as part of a transaction; epoch is that of its positions.
type member struct {
	*store.Batch
	epoch ids.Epoch
}

// statements returns an append as SQL. The watermark comes first, because it decides whether the batch is committed. Its
// row is the lock that serialises the appends of a partition.
func statements(m member) *pgx.Batch {
	sql := &pgx.Batch{}
	expected, next := m.GetExpected(), m.GetNext()
	if conversation.HasErasure(m.GetEffects()) {
		sql.Queue(setErasureTimeout)
	}
	if store.BugNoWatermarkCheck {
		sql.Queue(moveWatermark+returningWatermark, next.GetStream(), uint64(m.epoch), next.GetSequence(), next.GetTimeNs(), m.GetPartition())
	} else {
		sql.Queue(moveWatermark+onExpected+returningWatermark, next.GetStream(), uint64(m.epoch), next.GetSequence(), next.GetTimeNs(),
			m.GetPartition(), expected.GetStream(), expected.GetEpoch(), expected.GetSequence())
	}
	if m.Begins() && m.epoch != ids.Epoch(expected.GetEpoch()) {
		sql.Queue(endEpoch, expected.GetSequence(), m.GetPartition(), expected.GetEpoch())
		sql.Queue(beginEpoch, m.GetPartition(), uint64(m.epoch), next.GetStream())
	}
	queueRows(sql, []member{m})
	return sql
}

// queueRows writes everything that appends write besides their watermarks.
func queueRows(sql *pgx.Batch, members []member) {
	queueConversations(sql, members)
	queueEvents(sql, members)
	for _, m := range members {
		for i := range m.Changes {
			if change := &m.Changes[i]; !change.Creates() && (change.Name != nil || change.Members != 0) {
				sql.Queue(alterConversation, pgtype.Text{String: change.Name.GetName(), Valid: change.Name != nil}, change.Name.GetSeq(),
					change.Name.GetSender(), change.Name.GetTimeMs(), change.Members, string(change.ID))
			}
		}
		queueMemberships(sql, m.Batch, m.epoch)
		if !store.BugEffectsOutsideTransaction {
			queueEffects(sql, m.Batch)
		}
		queueRefusals(sql, m.Batch)
		for _, letter := range m.GetDeadLetters() {
			sql.Queue(insertDeadLetter, m.GetPartition(), m.GetNext().GetStream(), letter.GetSequence(), letter.GetReason(), orEmpty(letter.GetPayload()))
		}
	}
}

// orEmpty turns nil into an empty value. The driver would store nil as NULL.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// orNull turns an empty value into NULL.
func orNull(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	return b
}

func queueRefusals(sql *pgx.Batch, batch *store.Batch) {
	if len(batch.GetRefusals()) == 0 {
		return
	}
	for _, refusal := range batch.GetRefusals() {
		command, valid := store.DecodeCommandID(refusal.GetCommand().GetCommandId())
		sql.Queue(insertRefusal, batch.GetPartition(), refusal.GetCommand().GetConversationId(), refusal.GetCommand().GetSender(),
			pgtype.UUID{Bytes: command, Valid: valid}, refusal.GetAttempt(), orEmpty(refusal.GetCommitment()), int32(refusal.GetError().GetCode()),
			refusal.GetError().GetMessage(), refusal.GetError().GetField(), refusal.GetTimeMs())
	}
	beforeMs, limit := store.DropRefusals(batch.AppendRequest)
	sql.Queue(dropRefusals, batch.GetPartition(), beforeMs, limit)
}

func keys(batch *store.Batch) (conversations, senders []string, commands []pgtype.UUID) {
	n := len(batch.Rows)
	conversations, senders, commands = make([]string, n), make([]string, n), make([]pgtype.UUID, n)
	for i := range batch.Rows {
		row := &batch.Rows[i]
		conversations[i], senders[i], commands[i] = row.GetConversationId(), row.GetSender(), pgtype.UUID{Bytes: row.CommandID, Valid: true}
	}
	return conversations, senders, commands
}

// explain finds the reason why an append failed on a key: duplicates of committed commands, a command repeated within the
// batch, or a head or position, for which otherwise is the error.
func (s *Store) explain(ctx context.Context, batch *store.Batch, otherwise error) (*historyv1.AppendResponse, error) {
	var duplicates []*historyv1.Duplicate
	if !store.BugNoUniqueKey {
		conversations, senders, commands := keys(batch)
		err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
			var index int64
			found, err := scanLinked(rows, &index)
			if err != nil {
				return false, err
			}
			duplicates = append(duplicates, &historyv1.Duplicate{Index: uint32(index), First: found.event})
			return true, nil
		}, selectDuplicates, commands, conversations, senders)
		if err != nil {
			return nil, answer("look for duplicates", err)
		}
	}
	if len(duplicates) > 0 {
		return &historyv1.AppendResponse{Duplicates: duplicates}, nil
	}
	if err := batch.Repeated(); err != nil {
		return nil, err
	}
	if errors.Is(otherwise, store.ErrSeqTaken) {
		return nil, store.SeqTaken(ctx, batch, s.Heads)
	}
	return nil, otherwise
}

const saveCursors = `INSERT INTO cursors AS present (conversation_id, user_id, delivered_seq, delivered_time_ms, read_seq, read_time_ms)
	SELECT unnest($1::text[]), unnest($2::text[]), unnest($3::bigint[]), unnest($4::bigint[]), unnest($5::bigint[]), unnest($6::bigint[])
	ON CONFLICT (conversation_id, user_id) DO UPDATE SET
		delivered_time_ms = CASE WHEN excluded.delivered_seq > present.delivered_seq THEN excluded.delivered_time_ms ELSE present.delivered_time_ms END,
		delivered_seq = greatest(excluded.delivered_seq, present.delivered_seq),
		read_time_ms = CASE WHEN excluded.read_seq > present.read_seq THEN excluded.read_time_ms ELSE present.read_time_ms END,
		read_seq = greatest(excluded.read_seq, present.read_seq)
	WHERE excluded.delivered_seq > present.delivered_seq OR excluded.read_seq > present.read_seq`

// SaveCursors moves cursors with one statement. MergeCursors orders its rows, so that two such statements cannot
// deadlock.
func (s *Store) SaveCursors(ctx context.Context, updates []*historyv1.CursorUpdate) error {
	merged := store.MergeCursors(updates)
	if len(merged) == 0 {
		return nil
	}
	n := len(merged)
	conversations, users := make([]string, n), make([]string, n)
	delivered, deliveredMs, read, readMs := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, update := range merged {
		cursor := update.GetCursor()
		conversations[i], users[i] = update.GetConversationId(), cursor.GetUserId()
		delivered[i], deliveredMs[i] = int64(cursor.GetDeliveredSeq()), cursor.GetDeliveredTimeMs()
		read[i], readMs[i] = int64(cursor.GetReadSeq()), cursor.GetReadTimeMs()
	}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		_, err := conn.Exec(ctx, saveCursors, conversations, users, delivered, deliveredMs, read, readMs)
		return err
	})
	return wrap("save cursors", err)
}
