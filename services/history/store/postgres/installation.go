package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	selectLevel      = "SELECT value FROM meta WHERE key = 'level'"
	selectBackup     = "SELECT stream, epoch, sequence, time_ns FROM backups WHERE partition = $1"
	selectBackups    = "SELECT partition, stream, epoch, sequence, time_ns FROM backups ORDER BY partition"
	selectWatermarks = "SELECT partition, stream, epoch, sequence, time_ns FROM partitions WHERE epoch > 0 ORDER BY partition"
	markBackup       = `INSERT INTO backups (partition, stream, epoch, sequence, time_ns) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (partition) DO UPDATE SET stream = excluded.stream, epoch = excluded.epoch, sequence = excluded.sequence, time_ns = excluded.time_ns`
)

// Level returns the protocol level.
func (s *Store) Level(ctx context.Context) (conversation.Level, error) {
	var text string
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error { return conn.QueryRow(ctx, selectLevel).Scan(&text) })
	if err != nil {
		return 0, wrap("read the protocol level", err)
	}
	return store.ParseLevel(text)
}

// RaiseLevel raises the protocol level.
func (s *Store) RaiseLevel(ctx context.Context, level conversation.Level) error {
	return answer("raise the protocol level", s.change(ctx, "raise the protocol level", store.ErrLevel,
		"UPDATE meta SET value = $1 WHERE key = 'level' AND value::bigint <= $2", store.LevelText(level), int64(level)))
}

// transact runs a transaction.
func (s *Store) transact(ctx context.Context, run func(tx pgx.Tx) error) error {
	return s.pool.working(ctx, func(conn *pgxpool.Conn) error { return pgx.BeginFunc(ctx, conn, run) })
}

// MarkBackup stores the marks of a backup.
func (s *Store) MarkBackup(ctx context.Context, marks []*historyv1.BackupMark) (all []*historyv1.BackupMark, err error) {
	err = s.transact(ctx, func(tx pgx.Tx) error {
		watermarks, err := readMarks(ctx, tx, selectWatermarks)
		if err != nil {
			return err
		}
		present := make(map[uint32]*historyv1.Watermark, len(watermarks))
		for _, mark := range watermarks {
			present[mark.GetPartition()] = mark.GetWatermark()
		}
		storing := marks
		if len(marks) == 0 {
			storing = watermarks
		}
		for i, mark := range storing {
			if err := store.CheckMark(i, mark, present[mark.GetPartition()]); err != nil {
				return err
			}
			at := mark.GetWatermark()
			if _, err := tx.Exec(ctx, markBackup, mark.GetPartition(), at.GetStream(), at.GetEpoch(), at.GetSequence(), at.GetTimeNs()); err != nil {
				return err
			}
		}
		all, err = readMarks(ctx, tx, selectBackups)
		return err
	})
	return all, answer("mark a backup", err)
}

func readMarks(ctx context.Context, tx pgx.Tx, query string) (marks []*historyv1.BackupMark, err error) {
	err = each(ctx, tx, func(rows pgx.Rows) (bool, error) {
		mark := &historyv1.BackupMark{Watermark: &historyv1.Watermark{}}
		marks = append(marks, mark)
		return true, rows.Scan(&mark.Partition, &mark.Watermark.Stream, &mark.Watermark.Epoch, &mark.Watermark.Sequence, &mark.Watermark.TimeNs)
	}, query)
	return marks, err
}

// BackupMark returns the watermark of a partition in the last backup.
func (s *Store) BackupMark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error) {
	mark := &historyv1.Watermark{}
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		return conn.QueryRow(ctx, selectBackup, uint32(partition)).Scan(&mark.Stream, &mark.Epoch, &mark.Sequence, &mark.TimeNs)
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // no backup was marked
	}
	return mark, wrap(fmt.Sprintf("read the backup mark of partition %d", partition), err)
}
