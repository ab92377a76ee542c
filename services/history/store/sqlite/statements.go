package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/runnelhq/runnel/services/history/store"
)

// preparer prepares statements until the first error, so that a list of them reads as a list.
type preparer struct {
	prepare  func(query string) (*sql.Stmt, error)
	prepared []*sql.Stmt
	err      error
}

// preparing prepares on a connection, or on a pool.
func preparing(ctx context.Context, on interface {
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
},
) *preparer {
	return &preparer{prepare: func(query string) (*sql.Stmt, error) { return on.PrepareContext(ctx, query) }}
}

func (p *preparer) stmt(query string) *sql.Stmt {
	if p.err != nil {
		return nil
	}
	stmt, err := p.prepare(query)
	if err != nil {
		p.err = fmt.Errorf("prepare %q: %w", query, err)
		return nil
	}
	p.prepared = append(p.prepared, stmt)
	return stmt
}

// close closes what was prepared. A pool does it by itself, a connection does not, and SQLite keeps one that has
// statements open together with its files.
func (p *preparer) close() error {
	errs := make([]error, 0, len(p.prepared))
	for _, stmt := range p.prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// rowCounts are the row counts that statements of many rows are prepared for, falling. 100 rows take 64 + 16 + 16 + 4.
var rowCounts = [...]int{64, 16, 4, 1}

// manyRows is one statement prepared for each of rowCounts.
type manyRows struct {
	statements [len(rowCounts)]*sql.Stmt
	width      int
}

// manyRows prepares before, then row once for each row, then after.
func (p *preparer) manyRows(before, row, after string) manyRows {
	m := manyRows{width: strings.Count(row, "?")}
	for i, n := range rowCounts {
		m.statements[i] = p.stmt(before + strings.TrimSuffix(strings.Repeat(row+",", n), ",") + after)
	}
	return m
}

// exec runs the statement over all rows of args (width arguments a row) and returns how many rows it changed.
func (m *manyRows) exec(ctx context.Context, args []any) (changed int, err error) {
	for i, n := range rowCounts {
		for len(args) >= n*m.width {
			result, err := m.statements[i].ExecContext(ctx, args[:n*m.width]...)
			if err != nil {
				return changed, err
			}
			rows, err := result.RowsAffected()
			if err != nil {
				return changed, err
			}
			changed += int(rows)
			args = args[n*m.width:]
		}
	}
	return changed, nil
}

// writeStatements are everything the writer runs, prepared once on its connection.
type writeStatements struct {
	moveWatermark, readWatermark *sql.Stmt
	events, conversations, heads manyRows
	alter                        *sql.Stmt
	join                         manyRows
	leave                        *sql.Stmt
	deadLetter                   *sql.Stmt
	findCommand                  *sql.Stmt
	cursors                      manyRows
	leases, workers              *sql.Stmt
	setLease, setWanted          *sql.Stmt
	setWorker, dropWorker        *sql.Stmt
	dropWorkers                  *sql.Stmt
	dropDeadLetter, revoke       *sql.Stmt
}

func (s *writeStatements) prepare(p *preparer) {
	s.moveWatermark = p.stmt("UPDATE partitions SET stream = ?, sequence = ?, time_ns = ? WHERE partition = ? AND stream = ? AND sequence = ?")
	s.readWatermark = p.stmt(selectWatermark)
	// OR FAIL leaves the rows before a clash in place. The append is taken back as a whole anyway, and SQLite is spared a
	// journal for each statement.
	s.events = p.manyRows("INSERT OR FAIL INTO events (conversation_id, seq, time_ms, sender, command_id, kind, body, salt, prev_hash, hash) VALUES ", "(?,?,?,?,?,?,?,?,?,?)", "")
	s.conversations = p.manyRows("INSERT OR FAIL INTO conversations (conversation_id, kind, name, creator, head, head_hash, members, created_time_ms) VALUES ", "(?,?,?,?,?,?,?,?)", "")
	s.heads = p.manyRows("UPDATE conversations SET head = v.column2, head_hash = v.column3 FROM (VALUES ", "(?,?,?,?)",
		") AS v WHERE conversation_id = v.column1 AND head = v.column4")
	s.alter = p.stmt("UPDATE conversations SET name = coalesce(?, name), members = members + ? WHERE conversation_id = ?")
	s.join = p.manyRows("INSERT OR FAIL INTO memberships (conversation_id, user_id, joined_seq) VALUES ", "(?,?,?)", "")
	s.leave = p.stmt("UPDATE memberships SET left_seq = ? WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL")
	s.deadLetter = p.stmt("INSERT OR REPLACE INTO dead_letters (partition, stream, sequence, reason, payload, time_ms) VALUES (?,?,?,?,?,?)")
	s.findCommand = p.stmt(selectCommand)
	s.cursors = p.manyRows("INSERT INTO cursors (conversation_id, user_id, delivered_seq, delivered_time_ms, read_seq, read_time_ms) VALUES ", "(?,?,?,?,?,?)",
		` ON CONFLICT (conversation_id, user_id) DO UPDATE SET
			delivered_time_ms = iif(excluded.delivered_seq > delivered_seq, excluded.delivered_time_ms, delivered_time_ms),
			delivered_seq = max(excluded.delivered_seq, delivered_seq),
			read_time_ms = iif(excluded.read_seq > read_seq, excluded.read_time_ms, read_time_ms),
			read_seq = max(excluded.read_seq, read_seq)
		WHERE excluded.delivered_seq > delivered_seq OR excluded.read_seq > read_seq`)
	s.leases = p.stmt("SELECT partition, worker, until_ms, wanted FROM leases ORDER BY partition")
	s.workers = p.stmt("SELECT worker, seen_until_ms FROM workers")
	s.setLease = p.stmt("UPDATE leases SET worker = ?, until_ms = ?, wanted = ? WHERE partition = ?")
	s.setWanted = p.stmt(`UPDATE leases SET wanted = ? WHERE partition = ?
		AND (? = '' OR EXISTS (SELECT 1 FROM workers WHERE worker = ? AND seen_until_ms > (? + 0)))`)
	s.setWorker = p.stmt("INSERT OR REPLACE INTO workers (worker, seen_until_ms) VALUES (?, ?)")
	s.dropWorker = p.stmt("DELETE FROM workers WHERE worker = ?")
	s.dropWorkers = p.stmt("DELETE FROM workers WHERE seen_until_ms <= ?")
	s.dropDeadLetter = p.stmt("DELETE FROM dead_letters WHERE partition = ? AND stream = ? AND sequence = ?")
	s.revoke = p.stmt(fmt.Sprintf(`INSERT INTO revocations (user_id, before_ms)
		VALUES (?1, max(?2, 1 + coalesce((SELECT max(before_ms) FROM revocations WHERE before_ms <= ?2 + %d), 0)))
		ON CONFLICT (user_id) DO UPDATE SET before_ms = max(excluded.before_ms, before_ms) RETURNING before_ms`, store.MaxRevocationLeadMs))
}
