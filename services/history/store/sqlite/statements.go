package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/runnelhq/runnel/pkg/chain"

	"github.com/runnelhq/runnel/services/history/store"
)

// preparer prepares statements until the first error. Callers check the error once, after a list of statements.
type preparer struct {
	prepare  func(query string) (*sql.Stmt, error)
	prepared []*sql.Stmt
	err      error
}

// preparing makes a preparer for a connection or a pool.
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

// close closes the prepared statements. A pool closes its statements itself; a connection does not. SQLite keeps a
// connection with open statements, and its files, open.
func (p *preparer) close() error {
	errs := make([]error, 0, len(p.prepared))
	for _, stmt := range p.prepared {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(errs...)
}

// rowCounts are the row counts for which a statement of many rows is prepared, falling. For example, 100 rows are written
// as 64 + 16 + 16 + 4.
var rowCounts = [...]int{64, 16, 4, 1}

// manyRows is one statement prepared for each of rowCounts.
type manyRows struct {
	statements [len(rowCounts)]*sql.Stmt
	width      int
	args       []any // the arguments of one statement, reused; only the writer uses them
}

// manyRows prepares statements that consist of before, then row once for each row, then after. ?1 in row is an argument
// that all rows share; the other arguments must follow it in the first row.
func (p *preparer) manyRows(before, row, after string) manyRows {
	m := manyRows{width: strings.Count(row, "?") - strings.Count(row, "?1")}
	for i, n := range rowCounts {
		m.statements[i] = p.stmt(before + strings.TrimSuffix(strings.Repeat(row+",", n), ",") + after)
	}
	return m
}

// exec runs the statement over all rows in args, with width arguments per row. shared is the argument ?1 that all rows share,
// if there is one.
func (m *manyRows) exec(ctx context.Context, args []any, shared ...any) error {
	for i, n := range rowCounts {
		for len(args) >= n*m.width {
			these := args[:n*m.width]
			if len(shared) > 0 {
				m.args = append(append(m.args[:0], shared...), these...)
				these = m.args
			}
			_, err := m.statements[i].ExecContext(ctx, these...)
			clear(m.args)
			if err != nil {
				return err
			}
			args = args[n*m.width:]
		}
	}
	return nil
}

// plainColumns is the number of arguments of a plain event.
const plainColumns = 10

// writeStatements are all statements that the writer runs, prepared once on its connection.
type writeStatements struct {
	moveWatermark, readWatermark           *sql.Stmt
	endEpoch, beginEpoch, epochID          *sql.Stmt
	head                                   *sql.Stmt
	conversations, plainEvents, fullEvents manyRows
	alter                                  *sql.Stmt
	join                                   manyRows
	eraseName                              *sql.Stmt
	leave                                  *sql.Stmt
	views                                  viewStatements
	refusal, dropRefusals                  *sql.Stmt
	deadLetter                             *sql.Stmt
	findCommand, positionTaken             *sql.Stmt
	cursors                                manyRows
	leases, workers                        *sql.Stmt
	setLease, setWanted                    *sql.Stmt
	setWorker, dropWorker                  *sql.Stmt
	dropWorkers                            *sql.Stmt
	dropDeadLetter, revoke                 *sql.Stmt
	feedCursor                             *sql.Stmt
	installation                           installationStatements
	probe                                  *sql.Stmt
}

func (s *writeStatements) prepare(p *preparer) {
	s.moveWatermark = p.stmt(`UPDATE partitions SET stream = ?, epoch = ?, sequence = ?, time_ns = ?
		WHERE partition = ? AND stream = ? AND epoch = ? AND sequence = ?`)
	s.epochID = p.stmt("SELECT id FROM epochs WHERE partition = ? AND epoch = ?")
	s.readWatermark = p.stmt(selectWatermark)
	s.endEpoch = p.stmt("UPDATE epochs SET last_sequence = ? WHERE partition = ? AND epoch = ?")
	s.beginEpoch = p.stmt("INSERT INTO epochs (partition, epoch, stream) VALUES (?, ?, ?)")
	// OR FAIL keeps the rows before a conflict. That is harmless, because the whole append is undone anyway, and SQLite
	// need not keep a journal for each statement. Most events are plain. Their statement leaves out the columns that only
	// other events need, because every argument costs time.
	s.plainEvents = p.manyRows(`INSERT OR FAIL INTO events (epoch_id, format, conversation_id, seq, time_ms, sender, command_id, kind,
		body, salt, hash, sequence) VALUES `, fmt.Sprintf("(?1,%d,?,?,?,?,?,?,?,?,?,?)", chain.Format), "")
	s.fullEvents = p.manyRows(`INSERT OR FAIL INTO events (epoch_id, conversation_id, seq, time_ms, sender, command_id, kind,
		body, salt, hash, sequence, format, commitment, header_extra, target) VALUES `, "(?1,?,?,?,?,?,?,?,?,?,?,?,?,?,?)", "")
	s.conversations = p.manyRows(`INSERT OR FAIL INTO conversations (epoch, conversation_id, kind, name, name_seq, name_sender, name_time_ms, creator,
		head, head_hash, members, created_time_ms, sequence) VALUES `, "(?1,?,?,?,?,?,?,?,?,?,?,?,?)", "")
	// One row at a time: an UPDATE of several rows FROM VALUES puts them into a temporary table first, which takes longer.
	s.head = p.stmt("UPDATE conversations SET epoch = ?, head = ?, head_hash = ?, sequence = ? WHERE conversation_id = ? AND head = ?")
	s.alter = p.stmt(`UPDATE conversations SET name = coalesce(?1, name), name_seq = iif(?1 IS NULL, name_seq, ?2),
		name_sender = iif(?1 IS NULL, name_sender, ?3), name_time_ms = iif(?1 IS NULL, name_time_ms, ?4), members = members + ?5
		WHERE conversation_id = ?6`)
	s.join = p.manyRows("INSERT OR FAIL INTO memberships (conversation_id, user_id, joined_seq, joined_epoch, joined_sequence) VALUES ", "(?,?,?,?,?)", "")
	s.leave = p.stmt("UPDATE memberships SET left_seq = ?, left_epoch = ?, left_sequence = ? WHERE conversation_id = ? AND user_id = ? AND left_seq IS NULL")
	s.views.prepare(p)
	s.eraseName = p.stmt(`UPDATE conversations SET name = '' WHERE conversation_id = ?1 AND name <> ''
		AND EXISTS (SELECT 1 FROM events WHERE events.conversation_id = ?1 AND events.seq = name_seq AND body IS NULL)`)
	s.refusal = p.stmt(`INSERT INTO refusals (partition, conversation_id, sender, command_id, attempt, commitment, code, message, field, time_ms)
		VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (partition, conversation_id, sender, command_id) DO UPDATE SET attempt = excluded.attempt,
		commitment = excluded.commitment, code = excluded.code, message = excluded.message, field = excluded.field, time_ms = excluded.time_ms
		WHERE excluded.attempt > refusals.attempt OR excluded.time_ms > refusals.time_ms`)
	s.dropRefusals = p.stmt(`DELETE FROM refusals WHERE (partition, conversation_id, sender, command_id) IN
		(SELECT partition, conversation_id, sender, command_id FROM refusals WHERE partition = ? AND time_ms < (? + 0) ORDER BY time_ms LIMIT (? + 0))`)
	s.positionTaken = p.stmt("SELECT 1 FROM events WHERE epoch_id = (SELECT id FROM epochs WHERE partition = ? AND epoch = ?) AND sequence BETWEEN (? + 0) AND (? + 0) LIMIT 1")
	s.feedCursor = p.stmt("INSERT OR REPLACE INTO feed_cursors (reader, partition, epoch, sequence) VALUES (?, ?, ?, ?)")
	s.installation.prepare(p)
	s.probe = p.stmt("INSERT INTO meta (key, value) VALUES ('probe', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
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
