package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Append commits a batch. What does not need the transaction is done before, by the caller: the writer only runs SQL.
func (s *Store) Append(ctx context.Context, request *historyv1.AppendRequest) ([]*historyv1.Duplicate, error) {
	batch, err := store.Plan(request)
	if err != nil {
		return nil, err
	}
	a := newAppending(batch, s.now().UnixMilli())
	tried := fmt.Sprintf("append to partition %d", request.GetPartition())
	if err := s.writer.do(ctx, a.run, a.explain); err != nil {
		if a.refusal(err) {
			return nil, err
		}
		return nil, wrap(tried, err)
	}
	return a.duplicates, nil
}

// appending is a batch as arguments of statements.
type appending struct {
	*store.Batch
	nowMs                 int64
	events, heads, create []any
	continued             int // conversations that existed before
	altered               []*store.Change
	duplicates            []*historyv1.Duplicate
}

func newAppending(batch *store.Batch, nowMs int64) *appending {
	a := &appending{
		Batch: batch, nowMs: nowMs,
		events: make([]any, 0, 10*len(batch.Rows)),
		heads:  make([]any, 0, 4*len(batch.Changes)),
	}
	for i := range batch.Rows {
		row := &batch.Rows[i]
		a.events = append(a.events, row.GetConversationId(), int64(row.GetSeq()), row.GetTimeMs(), row.GetSender(), row.CommandID[:],
			int64(row.GetKind()), row.Body, row.GetSalt(), row.GetPrevHash(), row.GetHash())
	}
	for i := range batch.Changes {
		change := &batch.Changes[i]
		if change.Creates() {
			a.create = append(a.create, change.ID, int64(change.Kind), change.Name, change.Creator, int64(change.Last), change.Hash,
				int64(change.Members), change.CreatedMs)
			continue
		}
		a.continued++
		a.heads = append(a.heads, change.ID, int64(change.Last), change.Hash, int64(change.First-1))
		if change.Renamed || change.Members != 0 {
			a.altered = append(a.altered, change)
		}
	}
	return a
}

// run does all of the append. Order matters: the watermark is the law, so it comes first.
func (a *appending) run(ctx context.Context, w *writer) error {
	a.duplicates = nil
	if err := a.moveWatermark(ctx, w); err != nil {
		return err
	}
	changed, err := w.statements.heads.exec(ctx, a.heads)
	if err != nil {
		return err
	}
	if changed != a.continued {
		return errClash
	}
	if _, err := w.statements.conversations.exec(ctx, a.create); err != nil {
		return clash(err)
	}
	if _, err := w.statements.events.exec(ctx, a.events); err != nil {
		return clash(err)
	}
	for _, change := range a.altered {
		name := sql.NullString{String: change.Name, Valid: change.Renamed}
		if _, err := w.statements.alter.ExecContext(ctx, name, change.Members, change.ID); err != nil {
			return err
		}
	}
	if err := a.moveMembers(ctx, w); err != nil {
		return err
	}
	for _, letter := range a.GetDeadLetters() {
		if _, err := w.statements.deadLetter.ExecContext(ctx, a.GetPartition(), a.GetNext().GetStream(), int64(letter.GetSequence()),
			letter.GetReason(), orEmpty(letter.GetPayload()), a.nowMs); err != nil {
			return err
		}
	}
	return nil
}

func (a *appending) moveWatermark(ctx context.Context, w *writer) error {
	present := a.GetExpected()
	if store.BugNoWatermarkCheck {
		var err error
		if present, err = scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, a.GetPartition())); err != nil {
			return err
		}
	}
	next := a.GetNext()
	result, err := w.statements.moveWatermark.ExecContext(ctx, next.GetStream(), int64(next.GetSequence()), next.GetTimeNs(),
		a.GetPartition(), present.GetStream(), int64(present.GetSequence()))
	if err != nil {
		return err
	}
	if moved, err := result.RowsAffected(); err != nil || moved == 1 {
		return err
	}
	if present, err = scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, a.GetPartition())); err != nil {
		return err
	}
	return &store.WatermarkError{Partition: a.GetPartition(), Present: present}
}

func (a *appending) moveMembers(ctx context.Context, w *writer) error {
	for _, membership := range a.Memberships {
		if membership.Left != "" {
			result, err := w.statements.leave.ExecContext(ctx, int64(membership.Seq), membership.ConversationID, membership.Left)
			if err != nil {
				return err
			}
			if ended, err := result.RowsAffected(); err != nil || ended != 1 {
				return errors.Join(err, store.Invalid("events", "end the membership of somebody who is not a member"))
			}
			continue
		}
		args := make([]any, 0, 3*len(membership.Joined))
		for _, user := range membership.Joined {
			args = append(args, membership.ConversationID, user, int64(membership.Seq))
		}
		if _, err := w.statements.join.exec(ctx, args); violates(err) {
			return store.Invalid("events", "make somebody a member who is one already")
		} else if err != nil {
			return err
		}
	}
	return nil
}

// explain says why an append clashed: with commands that were committed before, with itself, or with a head.
func (a *appending) explain(ctx context.Context, w *writer) error {
	if !store.BugNoUniqueKey {
		for i := range a.Rows {
			row := &a.Rows[i]
			first, err := scanEvent(w.statements.findCommand.QueryRowContext(ctx, row.CommandID[:], row.GetConversationId(), row.GetSender()))
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return wrap("look for duplicates", err)
			}
			a.duplicates = append(a.duplicates, &historyv1.Duplicate{Index: uint32(i), First: first.event})
		}
	}
	if len(a.duplicates) > 0 {
		return nil
	}
	if err := a.Repeated(); err != nil {
		return err
	}
	return store.ErrSeqTaken
}

// refusal reports whether an error is an answer, and not a failure of the database.
func (a *appending) refusal(err error) bool {
	var watermark *store.WatermarkError
	var invalid *store.InvalidError
	return errors.As(err, &watermark) || errors.As(err, &invalid) || errors.Is(err, store.ErrSeqTaken)
}

func clash(err error) error {
	if violates(err) {
		return errClash
	}
	return err
}

// orEmpty makes NULL, which the driver makes of a nil slice, an empty value.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// SaveCursors moves cursors; the writes of several callers share a commit like appends do.
func (s *Store) SaveCursors(ctx context.Context, updates []*historyv1.CursorUpdate) error {
	merged := store.MergeCursors(updates)
	if len(merged) == 0 {
		return nil
	}
	args := make([]any, 0, 6*len(merged))
	for _, update := range merged {
		cursor := update.GetCursor()
		args = append(args, update.GetConversationId(), cursor.GetUserId(), int64(cursor.GetDeliveredSeq()), cursor.GetDeliveredTimeMs(),
			int64(cursor.GetReadSeq()), cursor.GetReadTimeMs())
	}
	return wrap("save cursors", s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.statements.cursors.exec(ctx, args)
		return err
	}, nil))
}
