package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	deadLetterTime    = "(extract(epoch FROM time) * 1000)::bigint"
	selectDeadLetters = "SELECT partition, stream, sequence, reason, " + deadLetterTime + `, octet_length(payload) FROM dead_letters
		WHERE (partition, stream, sequence) > ($1::int, $2, $3::bigint) AND partition <= $4 ORDER BY partition, stream, sequence LIMIT $5`
	selectDeadLetter = "SELECT reason, " + deadLetterTime + ", payload FROM dead_letters WHERE partition = $1 AND stream = $2 AND sequence = $3"
	deleteDeadLetter = "DELETE FROM dead_letters WHERE partition = $1 AND stream = $2 AND sequence = $3"

	selectRevocations = "SELECT user_id, before_ms FROM revocations WHERE before_ms > $1 ORDER BY before_ms LIMIT $2"
	selectRevocation  = "SELECT user_id, before_ms FROM revocations WHERE user_id = $1 AND before_ms > $2"
	// lockRevocations serialises revocations: the next revocation reads the clock and the table only after this one is
	// committed. The number is arbitrary; no other lock uses it.
	lockRevocations = "SELECT pg_advisory_xact_lock(7291)"
)

// revoke chooses a time above all stored times, unless that is too far ahead of the clock; see store.MaxRevocationLeadMs.
var revoke = fmt.Sprintf(`INSERT INTO revocations AS present (user_id, before_ms)
	SELECT $1, greatest(now.ms, (SELECT max(before_ms) + 1 FROM revocations WHERE before_ms <= now.ms + %d)) FROM (SELECT %s) AS now (ms)
	ON CONFLICT (user_id) DO UPDATE SET before_ms = greatest(excluded.before_ms, present.before_ms) RETURNING before_ms`,
	store.MaxRevocationLeadMs, clockMs)

// DeadLetters returns a page of dead letters, by rising id.
func (s *Store) DeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error) {
	limit := store.Limit(request.GetLimit())
	after, last := store.DeadLetterRange(request, s.partitions)
	response := &historyv1.ListDeadLettersResponse{}
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		if response.More = len(response.GetDeadLetters()) == limit; response.GetMore() {
			return false, nil
		}
		var key store.DeadLetterKey
		letter := &historyv1.StoredDeadLetter{Letter: &historyv1.DeadLetter{}}
		response.DeadLetters = append(response.DeadLetters, letter)
		err := rows.Scan((*uint32)(&key.Partition), &key.Stream, (*uint64)(&key.Sequence), &letter.Letter.Reason, &letter.TimeMs, &letter.PayloadBytes)
		key.Fill(letter)
		return true, err
	}, selectDeadLetters, uint32(after.Partition), after.Stream, uint64(after.Sequence), last, limit+1)
	return response, wrap("list dead letters", err)
}

// DeadLetter returns one dead letter with its payload.
func (s *Store) DeadLetter(ctx context.Context, key store.DeadLetterKey) (*historyv1.StoredDeadLetter, error) {
	letter := &historyv1.StoredDeadLetter{Letter: &historyv1.DeadLetter{}}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, selectDeadLetter, uint32(key.Partition), key.Stream, uint64(key.Sequence)).
			Scan(&letter.Letter.Reason, &letter.TimeMs, &letter.Letter.Payload)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, store.ErrNoDeadLetter
	}
	key.Fill(letter)
	letter.PayloadBytes = uint64(len(letter.GetLetter().GetPayload()))
	return letter, wrap("read dead letter "+key.ID(), err)
}

// DropDeadLetter deletes one dead letter.
func (s *Store) DropDeadLetter(ctx context.Context, key store.DeadLetterKey) error {
	return s.change(ctx, "drop dead letter "+key.ID(), store.ErrNoDeadLetter, deleteDeadLetter, uint32(key.Partition), key.Stream, uint64(key.Sequence))
}

// Revoke sends two statements in one round trip and one transaction.
func (s *Store) Revoke(ctx context.Context, user ids.User) (beforeMs int64, err error) {
	sql := &pgx.Batch{}
	sql.Queue(lockRevocations)
	sql.Queue(revoke, string(user)).QueryRow(func(row pgx.Row) error { return row.Scan(&beforeMs) })
	err = s.pool.working(ctx, func(conn *pgxpool.Conn) error { return conn.SendBatch(ctx, sql).Close() })
	return beforeMs, wrap("revoke a user's tokens", err)
}

// Revocations returns the revocations after a time, oldest first.
func (s *Store) Revocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error) {
	query, args := selectRevocations, []any{request.GetSinceMs(), store.MaxPage + 1}
	if user := request.GetUserId(); user != "" {
		query, args = selectRevocation, []any{user, request.GetSinceMs()}
	}
	response := &historyv1.GetRevocationsResponse{}
	err := s.each(ctx, s.pool.reading, func(rows pgx.Rows) (bool, error) {
		if response.More = len(response.GetRevocations()) == store.MaxPage; response.GetMore() {
			return false, nil
		}
		revocation := &historyv1.Revocation{}
		response.Revocations = append(response.Revocations, revocation)
		return true, rows.Scan(&revocation.UserId, &revocation.BeforeMs)
	}, query, args...)
	return response, wrap("read revocations", err)
}
