package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Append commits a batch. All work that does not need the transaction is done before, by the caller's goroutine, so that
// the writer only runs SQL.
func (s *Store) Append(ctx context.Context, request *historyv1.AppendRequest) (*historyv1.AppendResponse, error) {
	batch, err := store.Plan(request)
	if err != nil {
		return nil, err
	}
	a := newAppending(batch, s.now().UnixMilli())
	tried := fmt.Sprintf("append to partition %d", request.GetPartition())
	if err := s.writer.do(ctx, a.run, a.explain); err != nil {
		if errors.Is(err, store.ErrSeqTaken) {
			err = store.SeqTaken(ctx, batch, s.Heads)
		}
		return nil, answer(tried, err)
	}
	if len(a.duplicates) > 0 {
		return &historyv1.AppendResponse{Duplicates: a.duplicates}, nil
	}
	if store.BugEffectsOutsideTransaction {
		if err := s.writer.do(ctx, a.runEffects, nil); err != nil {
			return nil, wrap(tried, err)
		}
	}
	s.bells.Ring(ids.Partition(request.GetPartition()))
	return &historyv1.AppendResponse{Epoch: uint64(a.epoch)}, nil
}

// appending is a batch as arguments of statements.
type appending struct {
	*store.Batch
	nowMs int64
	// epoch is the epoch of the batch's positions.
	epoch ids.Epoch
	// plain are the arguments of events that have only the fields that every message has; full are the arguments of all
	// other events.
	plain, full, heads, create []any
	altered                    []*store.Change
	duplicates                 []*historyv1.Duplicate
}

// headColumns is the number of arguments of a head.
const headColumns = 6

// headArgs are the arguments that the statements for an event and for its conversation's head share. Each is made once,
// because making an argument that is not a pointer allocates memory.
type headArgs struct{ id, seq, hash, sequence any }

func newAppending(batch *store.Batch, nowMs int64) *appending {
	a := &appending{
		Batch: batch, nowMs: nowMs, epoch: ids.Epoch(batch.GetExpected().GetEpoch()),
		plain: make([]any, 0, plainColumns*len(batch.Rows)),
		heads: make([]any, 0, headColumns*len(batch.Changes)),
	}
	if batch.Begins() && !store.BugPositionReused || a.epoch == 0 {
		a.epoch = store.NextEpoch(a.epoch, nowMs)
	}
	epoch := any(int64(a.epoch))
	shared := make([]headArgs, len(batch.Rows))
	for i := range batch.Rows {
		row := &batch.Rows[i]
		head := headArgs{id: row.GetConversationId(), seq: int64(row.GetSeq()), hash: row.GetHash(), sequence: int64(row.Sequence)}
		shared[i] = head
		if row.Plain() {
			a.plain = append(a.plain, head.id, head.seq, row.GetTimeMs(), row.GetSender(), row.CommandID[:],
				int64(row.GetKind()), row.GetBody(), row.GetSalt(), head.hash, head.sequence)
			continue
		}
		a.full = append(a.full, head.id, head.seq, row.GetTimeMs(), row.GetSender(), row.CommandID[:],
			int64(row.GetKind()), orNull(row.GetBody()), orNull(row.GetSalt()), head.hash, head.sequence,
			int64(row.GetFormat()), orNull(row.Commitment), orNull(row.GetHeaderExtra()), sql.NullInt64{Int64: int64(row.Target), Valid: row.Target > 0})
	}
	for i := range batch.Changes {
		change := &batch.Changes[i]
		if change.Creates() {
			a.create = append(a.create, string(change.ID), int64(change.Kind), change.Name.GetName(), int64(change.Name.GetSeq()), change.Name.GetSender(),
				change.Name.GetTimeMs(), string(change.Creator), int64(change.Last), change.Hash, int64(change.Members), change.CreatedMs, int64(change.Sequence))
			continue
		}
		head := shared[change.LastRow]
		a.heads = append(a.heads, epoch, head.seq, head.hash, head.sequence, head.id, int64(change.First-1))
		if change.Name != nil || change.Members != 0 {
			a.altered = append(a.altered, change)
		}
	}
	return a
}

// run does the whole append. The watermark comes first, because it decides whether the batch is committed.
func (a *appending) run(ctx context.Context, w *writer) error {
	a.duplicates = nil
	if err := a.moveWatermark(ctx, w); err != nil {
		return err
	}
	if err := a.moveHeads(ctx, w); err != nil {
		return err
	}
	if err := w.statements.conversations.exec(ctx, a.create, int64(a.epoch)); err != nil {
		return clash(err)
	}
	if err := a.runEvents(ctx, w); err != nil {
		return err
	}
	for _, change := range a.altered {
		name := sql.NullString{String: change.Name.GetName(), Valid: change.Name != nil}
		if _, err := w.statements.alter.ExecContext(ctx, name, int64(change.Name.GetSeq()), change.Name.GetSender(), change.Name.GetTimeMs(),
			change.Members, string(change.ID)); err != nil {
			return err
		}
	}
	if err := a.runMemberships(ctx, w); err != nil {
		return err
	}
	if !store.BugEffectsOutsideTransaction {
		if err := a.runEffects(ctx, w); err != nil {
			return err
		}
	}
	if err := a.refuse(ctx, w); err != nil {
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

// moveHeads moves the heads of existing conversations. Each head must be the event that the batch continues.
func (a *appending) moveHeads(ctx context.Context, w *writer) error {
	for heads := a.heads; len(heads) > 0; heads = heads[headColumns:] {
		result, err := w.statements.head.ExecContext(ctx, heads[:headColumns]...)
		if err != nil {
			return err
		}
		switch moved, err := result.RowsAffected(); {
		case err != nil:
			return err
		case moved == 0:
			return errClash
		}
	}
	return nil
}

func (a *appending) runEvents(ctx context.Context, w *writer) error {
	if len(a.Rows) == 0 {
		return nil
	}
	epoch, err := w.epochID(ctx, ids.Partition(a.GetPartition()), a.epoch)
	if err != nil {
		return err
	}
	if err := w.statements.plainEvents.exec(ctx, a.plain, epoch); err != nil {
		return clash(err)
	}
	return clash(w.statements.fullEvents.exec(ctx, a.full, epoch))
}

// moveWatermark moves the watermark if it is the one that the batch expects. If the batch begins an epoch, so does
// moveWatermark.
func (a *appending) moveWatermark(ctx context.Context, w *writer) error {
	present := a.GetExpected()
	if store.BugNoWatermarkCheck {
		var err error
		if present, err = scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, a.GetPartition())); err != nil {
			return err
		}
		a.epoch = max(a.epoch, ids.Epoch(present.GetEpoch()))
	}
	next := a.GetNext()
	result, err := w.statements.moveWatermark.ExecContext(ctx, next.GetStream(), int64(a.epoch), int64(next.GetSequence()), next.GetTimeNs(),
		a.GetPartition(), present.GetStream(), int64(present.GetEpoch()), int64(present.GetSequence()))
	if err != nil {
		return err
	}
	switch moved, err := result.RowsAffected(); {
	case err != nil:
		return err
	case moved == 1 && a.epoch == ids.Epoch(present.GetEpoch()):
		return nil
	case moved == 1:
		return w.beginEpoch(ctx, ids.Partition(a.GetPartition()), present, &historyv1.Watermark{Stream: next.GetStream(), Epoch: uint64(a.epoch)})
	}
	if present, err = scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, a.GetPartition())); err != nil {
		return err
	}
	return &store.WatermarkError{Partition: ids.Partition(a.GetPartition()), Present: present}
}

// refuse stores the refusals of the batch, and removes some that have expired.
func (a *appending) refuse(ctx context.Context, w *writer) error {
	if len(a.GetRefusals()) == 0 {
		return nil
	}
	for _, refusal := range a.GetRefusals() {
		id, _ := store.DecodeCommandID(refusal.GetCommand().GetCommandId())
		if _, err := w.statements.refusal.ExecContext(ctx, a.GetPartition(), refusal.GetCommand().GetConversationId(), refusal.GetCommand().GetSender(),
			id[:], int64(refusal.GetAttempt()), orEmpty(refusal.GetCommitment()), int64(refusal.GetError().GetCode()), refusal.GetError().GetMessage(),
			refusal.GetError().GetField(), refusal.GetTimeMs()); err != nil {
			return err
		}
	}
	beforeMs, limit := store.DropRefusals(a.AppendRequest)
	_, err := w.statements.dropRefusals.ExecContext(ctx, a.GetPartition(), beforeMs, limit)
	return err
}

// explain finds the reason why an append failed on a key: duplicates of committed commands, a command repeated within the
// batch, or a head.
func (a *appending) explain(ctx context.Context, w *writer) error {
	if !store.BugNoUniqueKey {
		for i := range a.Rows {
			row := &a.Rows[i]
			first, err := scanLinked(w.statements.findCommand.QueryRowContext(ctx, row.CommandID[:], row.GetConversationId(), row.GetSender()))
			if errors.Is(err, sql.ErrNoRows) {
				continue
			}
			if err != nil {
				return answer("look for duplicates", err)
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
	if len(a.Rows) > 0 {
		var taken int64
		err := w.statements.positionTaken.QueryRowContext(ctx, a.GetPartition(), int64(a.epoch), int64(a.Rows[0].Sequence),
			int64(a.Rows[len(a.Rows)-1].Sequence)).Scan(&taken)
		if err == nil {
			return store.ErrPosition
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return wrap("look for positions that are taken", err)
		}
	}
	return store.ErrSeqTaken
}

func clash(err error) error {
	if violates(err) {
		return errClash
	}
	return err
}

// orEmpty turns nil into an empty value. The driver would store nil as NULL.
func orEmpty(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// orNull turns an empty value into NULL.
func orNull(b []byte) any {
	if len(b) == 0 {
		return nil
	}
	return b
}

// SaveCursors moves cursors. Like appends, the calls of several callers share a commit.
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
		return w.statements.cursors.exec(ctx, args)
	}, nil))
}
