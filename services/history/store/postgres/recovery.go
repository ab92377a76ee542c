package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	lockWatermarks = "SELECT partition, stream, epoch, sequence, time_ns FROM partitions WHERE epoch > 0 ORDER BY partition FOR UPDATE"
	lockWatermark  = selectWatermark + " FOR UPDATE"
	setWatermark   = "UPDATE partitions SET epoch = $1, sequence = $2 WHERE partition = $3"
	insertLoss     = "INSERT INTO losses (partition, epoch, stream, first_sequence, last_sequence) VALUES ($1, $2, $3, $4, $5)"
	selectHashes   = "SELECT seq, hash FROM events WHERE conversation_id = $1 AND seq = ANY ($2::bigint[])"
)

// RaiseEpochs begins a new epoch in all partitions, in one transaction. It first locks the rows of partitions, so that
// appends wait.
func (s *Store) RaiseEpochs(ctx context.Context) (raised []*historyv1.BackupMark, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		if raised, err = readMarks(ctx, tx, lockWatermarks); err != nil {
			return err
		}
		for _, mark := range raised {
			if err := raiseEpoch(ctx, tx, mark, ids.Sequence(mark.GetWatermark().GetSequence())); err != nil {
				return err
			}
		}
		return nil
	})
	return raised, wrap("raise the epochs", err)
}

// raiseEpoch begins a new epoch with the partition at a sequence, and sets both in the mark.
func raiseEpoch(ctx context.Context, tx pgx.Tx, mark *historyv1.BackupMark, sequence ids.Sequence) error {
	var nowMs int64
	if err := tx.QueryRow(ctx, "SELECT "+clockMs).Scan(&nowMs); err != nil {
		return err
	}
	at := mark.GetWatermark()
	next := &historyv1.Watermark{Stream: at.GetStream(), Epoch: uint64(store.NextEpoch(ids.Epoch(at.GetEpoch()), nowMs)), Sequence: uint64(sequence), TimeNs: at.GetTimeNs()}
	if _, err := tx.Exec(ctx, endEpoch, at.GetSequence(), mark.GetPartition(), at.GetEpoch()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, beginEpoch, mark.GetPartition(), next.GetEpoch(), next.GetStream()); err != nil {
		return err
	}
	mark.Watermark = next
	_, err := tx.Exec(ctx, setWatermark, next.GetEpoch(), uint64(sequence), mark.GetPartition())
	return err
}

// AcceptLoss moves a partition's watermark over lost commands.
func (s *Store) AcceptLoss(ctx context.Context, partition ids.Partition, through ids.Sequence) (loss *store.Loss, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		present := &historyv1.Watermark{}
		if err := tx.QueryRow(ctx, lockWatermark, uint32(partition)).Scan(&present.Stream, &present.Epoch, &present.Sequence, &present.TimeNs); err != nil {
			return err
		}
		if err := store.CheckLoss(present, through); err != nil {
			return err
		}
		mark := &historyv1.BackupMark{Partition: uint32(partition), Watermark: present}
		if err := raiseEpoch(ctx, tx, mark, through); err != nil {
			return err
		}
		loss = &store.Loss{
			Partition: partition, Stream: present.GetStream(), First: ids.Sequence(present.GetSequence() + 1), Last: through, Epoch: ids.Epoch(mark.GetWatermark().GetEpoch()),
		}
		_, err := tx.Exec(ctx, insertLoss, uint32(partition), uint64(loss.Epoch), loss.Stream, uint64(loss.First), uint64(loss.Last))
		return err
	})
	if err != nil {
		return nil, answer(fmt.Sprintf("accept a loss in partition %d", partition), err)
	}
	return loss, nil
}

// eraseName clears a name that was set by an erased event.
const eraseName = `UPDATE conversations SET name = '' WHERE conversation_id = $1 AND name <> ''
	AND EXISTS (SELECT 1 FROM events WHERE events.conversation_id = $1 AND events.seq = name_seq AND body IS NULL)`

// EraseAgain carries out an erasure without an append.
func (s *Store) EraseAgain(ctx context.Context, id ids.Conversation, erase *historyv1.EraseEvents) (erased int, err error) {
	if err := store.CheckErase("erase_events", erase); err != nil {
		return 0, err
	}
	err = s.transact(ctx, func(tx pgx.Tx) error {
		erased = 0
		for _, step := range eraseSteps(erase) {
			args := eraseArgs(id, erase)
			if _, err := tx.Exec(ctx, dropErased+eraseWhere+step+")", args...); err != nil {
				return err
			}
			tag, err := tx.Exec(ctx, eraseSet+eraseWhere+step+" AND body IS NOT NULL", args...)
			if err != nil {
				return err
			}
			erased += int(tag.RowsAffected())
		}
		_, err := tx.Exec(ctx, eraseName, string(id))
		return err
	})
	return erased, wrap("erase in "+string(id), err)
}

// Hashes returns the hashes of events.
func (s *Store) Hashes(ctx context.Context, id ids.Conversation, seqs []uint64) (map[uint64][]byte, error) {
	hashes := make(map[uint64][]byte, len(seqs))
	err := s.each(ctx, s.pool.working, func(rows pgx.Rows) (bool, error) {
		var seq uint64
		var hash []byte
		err := rows.Scan(&seq, &hash)
		hashes[seq] = hash
		return true, err
	}, selectHashes, string(id), numbers[int64](seqs))
	return hashes, wrap("read hashes of "+string(id), err)
}
