package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	selectLevel      = "SELECT value FROM meta WHERE key = 'level'"
	selectWatermarks = "SELECT partition, stream, epoch, sequence, time_ns FROM partitions WHERE epoch > 0 ORDER BY partition"
	insertMark       = "INSERT OR REPLACE INTO backups (partition, stream, epoch, sequence, time_ns) VALUES (?,?,?,?,?)"
)

// otherReads are rarely used queries.
type otherReads struct {
	level, backup, refusals, hashes *sql.Stmt
}

func (s *otherReads) prepare(p *preparer) {
	s.level = p.stmt(selectLevel)
	s.backup = p.stmt("SELECT stream, epoch, sequence, time_ns FROM backups WHERE partition = ?")
	s.refusals = p.stmt(`SELECT conversation_id, sender, command_id, attempt, commitment, code, message, field, time_ms FROM refusals
		WHERE partition = ? AND (conversation_id, sender, command_id) > (?, ?, ?) ORDER BY conversation_id, sender, command_id LIMIT (? + 0)`)
	s.hashes = p.stmt("SELECT seq, hash FROM events WHERE conversation_id = ? AND seq IN (SELECT value FROM json_each(?))")
}

// installationStatements write the settings that operators change.
type installationStatements struct {
	level, raiseLevel, watermarks, mark, marks, setWatermark, loss *sql.Stmt
}

func (s *installationStatements) prepare(p *preparer) {
	s.level = p.stmt(selectLevel)
	s.raiseLevel = p.stmt("UPDATE meta SET value = ? WHERE key = 'level'")
	s.watermarks = p.stmt(selectWatermarks)
	s.mark = p.stmt(insertMark)
	s.marks = p.stmt("SELECT partition, stream, epoch, sequence, time_ns FROM backups ORDER BY partition")
	s.setWatermark = p.stmt("UPDATE partitions SET epoch = ?, sequence = ? WHERE partition = ?")
	s.loss = p.stmt("INSERT INTO losses (partition, epoch, stream, first_sequence, last_sequence, time_ms) VALUES (?,?,?,?,?,?)")
}

func newRefusal() *historyv1.Refusal {
	return &historyv1.Refusal{Command: &historyv1.CommandKey{}, Error: &conversationv1.Error{}}
}

// Level returns the protocol level.
func (s *Store) Level(ctx context.Context) (conversation.Level, error) {
	var text string
	if err := s.read.other.level.QueryRowContext(ctx).Scan(&text); err != nil {
		return 0, wrap("read the protocol level", err)
	}
	return store.ParseLevel(text)
}

// RaiseLevel raises the protocol level.
func (s *Store) RaiseLevel(ctx context.Context, level conversation.Level) error {
	return answer("raise the protocol level", s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		var text string
		if err := w.statements.installation.level.QueryRowContext(ctx).Scan(&text); err != nil {
			return err
		}
		present, err := store.ParseLevel(text)
		if err != nil {
			return err
		}
		if level < present {
			return store.ErrLevel
		}
		_, err = w.statements.installation.raiseLevel.ExecContext(ctx, store.LevelText(level))
		return err
	}, nil))
}

// MarkBackup stores the marks of a backup.
func (s *Store) MarkBackup(ctx context.Context, marks []*historyv1.BackupMark) ([]*historyv1.BackupMark, error) {
	var all []*historyv1.BackupMark
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) (err error) {
		statements := &w.statements.installation
		storing := marks
		if len(marks) == 0 {
			if storing, err = readMarks(ctx, statements.watermarks); err != nil {
				return err
			}
		}
		for i, mark := range storing {
			present, err := scanWatermark(w.statements.readWatermark.QueryRowContext(ctx, mark.GetPartition()))
			if err != nil {
				return err
			}
			if err := store.CheckMark(i, mark, present); err != nil {
				return err
			}
			at := mark.GetWatermark()
			if _, err := statements.mark.ExecContext(ctx, mark.GetPartition(), at.GetStream(), int64(at.GetEpoch()), int64(at.GetSequence()), at.GetTimeNs()); err != nil {
				return err
			}
		}
		all, err = readMarks(ctx, statements.marks)
		return err
	}, nil)
	if err != nil {
		return nil, answer("mark a backup", err)
	}
	return all, nil
}

func readMarks(ctx context.Context, stmt *sql.Stmt) (marks []*historyv1.BackupMark, err error) {
	err = each(ctx, stmt, func(rows *sql.Rows) (bool, error) {
		mark := &historyv1.BackupMark{Watermark: &historyv1.Watermark{}}
		marks = append(marks, mark)
		return true, rows.Scan(&mark.Partition, &mark.Watermark.Stream, &mark.Watermark.Epoch, &mark.Watermark.Sequence, &mark.Watermark.TimeNs)
	})
	return marks, err
}

// BackupMark returns the watermark of a partition in the last backup.
func (s *Store) BackupMark(ctx context.Context, partition ids.Partition) (*historyv1.Watermark, error) {
	mark, err := scanWatermark(s.read.other.backup.QueryRowContext(ctx, uint32(partition)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // no backup was marked
	}
	return mark, wrap(fmt.Sprintf("read the backup mark of partition %d", partition), err)
}
