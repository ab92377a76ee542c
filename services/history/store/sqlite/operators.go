package sqlite

import (
	"context"
	"database/sql"
	"errors"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// DeadLetters returns a page of dead letters, by rising id.
func (s *Store) DeadLetters(ctx context.Context, request *historyv1.ListDeadLettersRequest) (*historyv1.ListDeadLettersResponse, error) {
	limit := store.Limit(request.GetLimit())
	after, last := store.DeadLetterRange(request, s.partitions)
	response := &historyv1.ListDeadLettersResponse{}
	err := each(ctx, s.read.deadLetters, func(rows *sql.Rows) (bool, error) {
		if response.More = len(response.GetDeadLetters()) == limit; response.GetMore() {
			return false, nil
		}
		var key store.DeadLetterKey
		letter := &historyv1.StoredDeadLetter{Letter: &historyv1.DeadLetter{}}
		response.DeadLetters = append(response.DeadLetters, letter)
		err := rows.Scan((*uint32)(&key.Partition), &key.Stream, (*uint64)(&key.Sequence), &letter.Letter.Reason, &letter.TimeMs, &letter.PayloadBytes)
		key.Fill(letter)
		return true, err
	}, uint32(after.Partition), after.Stream, int64(after.Sequence), last, limit+1)
	return response, wrap("list dead letters", err)
}

// DeadLetter returns one dead letter with its payload.
func (s *Store) DeadLetter(ctx context.Context, key store.DeadLetterKey) (*historyv1.StoredDeadLetter, error) {
	letter := &historyv1.StoredDeadLetter{Letter: &historyv1.DeadLetter{}}
	err := s.read.deadLetter.QueryRowContext(ctx, uint32(key.Partition), key.Stream, int64(key.Sequence)).
		Scan(&letter.Letter.Reason, &letter.TimeMs, &letter.Letter.Payload)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, store.ErrNoDeadLetter
	}
	key.Fill(letter)
	letter.PayloadBytes = uint64(len(letter.GetLetter().GetPayload()))
	return letter, wrap("read dead letter "+key.ID(), err)
}

// DropDeadLetter deletes one dead letter.
func (s *Store) DropDeadLetter(ctx context.Context, key store.DeadLetterKey) error {
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		result, err := w.statements.dropDeadLetter.ExecContext(ctx, uint32(key.Partition), key.Stream, int64(key.Sequence))
		if err != nil {
			return err
		}
		if dropped, err := result.RowsAffected(); err != nil || dropped == 1 {
			return err
		}
		return store.ErrNoDeadLetter
	}, nil)
	return answer("drop dead letter "+key.ID(), err)
}

// Revoke runs as one write. Writes run one after another, so the times rise in the order of the writes.
func (s *Store) Revoke(ctx context.Context, user ids.User) (int64, error) {
	var beforeMs int64
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		return w.statements.revoke.QueryRowContext(ctx, string(user), s.now().UnixMilli()).Scan(&beforeMs)
	}, nil)
	if err != nil {
		// The writer may still be running after ctx has ended, so beforeMs must not be read.
		return 0, wrap("revoke a user's tokens", err)
	}
	return beforeMs, nil
}

// Revocations returns the revocations after a time, oldest first.
func (s *Store) Revocations(ctx context.Context, request *historyv1.GetRevocationsRequest) (*historyv1.GetRevocationsResponse, error) {
	stmt, args := s.read.revocations, []any{request.GetSinceMs(), store.MaxPage + 1}
	if user := request.GetUserId(); user != "" {
		stmt, args = s.read.revocation, []any{user, request.GetSinceMs()}
	}
	response := &historyv1.GetRevocationsResponse{}
	err := each(ctx, stmt, func(rows *sql.Rows) (bool, error) {
		if response.More = len(response.GetRevocations()) == store.MaxPage; response.GetMore() {
			return false, nil
		}
		revocation := &historyv1.Revocation{}
		response.Revocations = append(response.Revocations, revocation)
		return true, rows.Scan(&revocation.UserId, &revocation.BeforeMs)
	}, args...)
	return response, wrap("read revocations", err)
}
