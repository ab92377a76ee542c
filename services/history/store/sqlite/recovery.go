package sqlite

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// RaiseEpochs begins a new epoch in all partitions, in one write.
func (s *Store) RaiseEpochs(ctx context.Context) ([]*historyv1.BackupMark, error) {
	var raised []*historyv1.BackupMark
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		marks, err := readMarks(ctx, w.statements.installation.watermarks)
		if err != nil {
			return err
		}
		for _, mark := range marks {
			if err := w.raiseEpoch(ctx, mark, ids.Sequence(mark.GetWatermark().GetSequence()), s.now().UnixMilli()); err != nil {
				return err
			}
		}
		raised = marks
		return nil
	}, nil)
	if err != nil {
		return nil, wrap("raise the epochs", err)
	}
	return raised, nil
}

// raiseEpoch begins a new epoch with the partition at a sequence, and sets both in the mark.
func (w *writer) raiseEpoch(ctx context.Context, mark *historyv1.BackupMark, sequence ids.Sequence, nowMs int64) error {
	at := mark.GetWatermark()
	next := &historyv1.Watermark{Stream: at.GetStream(), Epoch: uint64(store.NextEpoch(ids.Epoch(at.GetEpoch()), nowMs)), Sequence: uint64(sequence), TimeNs: at.GetTimeNs()}
	if err := w.beginEpoch(ctx, ids.Partition(mark.GetPartition()), at, next); err != nil {
		return err
	}
	mark.Watermark = next
	_, err := w.statements.installation.setWatermark.ExecContext(ctx, int64(next.GetEpoch()), int64(sequence), mark.GetPartition())
	return err
}

// AcceptLoss moves a partition's watermark over lost commands.
func (s *Store) AcceptLoss(ctx context.Context, partition ids.Partition, through ids.Sequence) (*store.Loss, error) {
	var loss *store.Loss
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		present, err := scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, uint32(partition)))
		if err != nil {
			return err
		}
		if err := store.CheckLoss(present, through); err != nil {
			return err
		}
		nowMs := s.now().UnixMilli()
		mark := &historyv1.BackupMark{Partition: uint32(partition), Watermark: present}
		if err := w.raiseEpoch(ctx, mark, through, nowMs); err != nil {
			return err
		}
		accepted := store.Loss{
			Partition: partition, Stream: present.GetStream(), First: ids.Sequence(present.GetSequence() + 1), Last: through, Epoch: ids.Epoch(mark.GetWatermark().GetEpoch()),
		}
		if _, err := w.statements.installation.loss.ExecContext(ctx, uint32(partition), int64(accepted.Epoch), accepted.Stream, int64(accepted.First), int64(accepted.Last), nowMs); err != nil {
			return err
		}
		loss = &accepted
		return nil
	}, nil)
	if err != nil {
		return nil, answer(fmt.Sprintf("accept a loss in partition %d", partition), err)
	}
	return loss, nil
}

// EraseAgain carries out an erasure without an append.
func (s *Store) EraseAgain(ctx context.Context, id ids.Conversation, erase *historyv1.EraseEvents) (int, error) {
	if err := store.CheckErase("erase_events", erase); err != nil {
		return 0, err
	}
	var erased int
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) (err error) {
		if erased, err = w.statements.views.erase(ctx, id, erase); err != nil {
			return err
		}
		_, err = w.statements.eraseName.ExecContext(ctx, string(id))
		return err
	}, nil)
	if err != nil {
		return 0, wrap("erase in "+string(id), err)
	}
	return erased, nil
}

// Hashes returns the hashes of events.
func (s *Store) Hashes(ctx context.Context, id ids.Conversation, seqs []uint64) (map[uint64][]byte, error) {
	hashes := make(map[uint64][]byte, len(seqs))
	err := each(ctx, s.read.other.hashes, func(rows *sql.Rows) (bool, error) {
		var seq uint64
		var hash []byte
		err := rows.Scan(&seq, &hash)
		hashes[seq] = hash
		return true, err
	}, string(id), jsonNumbers(seqs))
	return hashes, wrap("read hashes of "+string(id), err)
}
