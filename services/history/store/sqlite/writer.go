package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// queueLength is the maximum number of waiting writes. The caller of a further write waits until there is room.
	queueLength = 256
	// maxGroup is the maximum number of writes in one transaction, so that no write waits too long for its commit.
	maxGroup = 64
)

// writer owns the only connection that writes. It runs all waiting writes in one transaction, so that they share one
// fsync. While this runs, the next group collects. A group waits for more writes only while they crowd; see pace. Each write
// has its own savepoint. A refused write is rolled back to its savepoint and does not affect the others. No write is answered
// before the commit has returned.
type writer struct {
	db         *sql.DB
	conn       *sql.Conn
	prepared   *preparer
	statements writeStatements
	begin, commit, rollback,
	savepoint, release, rollbackTo *sql.Stmt
	epochs epochs
	pace   pace

	queue   chan *write
	restart chan struct{} // asks the writer to copy the rest of the write-ahead log; see checkpointer
	commits atomic.Uint64
	// committing is 1 while a transaction is under way.
	committing atomic.Int32
	quit       chan struct{} // closed to stop the writer; queued writes are still committed
	done       chan struct{} // closed when the goroutine has ended

	closing sync.Once
}

// write is one unit of work: it is committed completely, or not at all.
type write struct {
	// gone returns an error once the caller has stopped waiting.
	gone func() error
	// run executes the write. If it returns an error, all its changes are undone.
	run action
	// explain, if set, turns errClash of run into a more specific error. It runs after run was undone, in the same
	// transaction.
	explain action
	err     chan error // has a buffer of one: the writer never waits for a caller
}

// action runs SQL on the writer's connection. Its context is the writer's, not the caller's: a caller that stops waiting
// must not interrupt a transaction that contains other callers' writes.
type action func(ctx context.Context, w *writer) error

// errClash means that a write met a key or a head that it did not expect.
var errClash = errors.New("conflict with a stored row")

func startWriter(ctx context.Context, db *sql.DB, gather time.Duration) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("take the writing connection: %w", err)
	}
	w := &writer{
		db: db, conn: conn, epochs: epochs{}, pace: pace{longest: gather, begun: time.Now()},
		queue: make(chan *write, queueLength), restart: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
	}
	prepare := preparing(ctx, conn)
	w.begin, w.commit, w.rollback = prepare.stmt("BEGIN IMMEDIATE"), prepare.stmt("COMMIT"), prepare.stmt("ROLLBACK")
	w.savepoint, w.release, w.rollbackTo = prepare.stmt("SAVEPOINT one"), prepare.stmt("RELEASE one"), prepare.stmt("ROLLBACK TO one")
	w.statements.prepare(prepare)
	w.prepared = prepare
	if prepare.err != nil {
		return nil, errors.Join(prepare.err, prepare.close(), conn.Close())
	}
	go w.loop(context.WithoutCancel(ctx))
	return w, nil
}

// do queues a write and waits for its outcome. If ctx ends first, the outcome is unknown.
func (w *writer) do(ctx context.Context, run, explain action) error {
	one := &write{gone: ctx.Err, run: run, explain: explain, err: make(chan error, 1)}
	select {
	case <-w.quit:
		return errClosed
	default:
	}
	select {
	case w.queue <- one:
	case <-w.quit:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("wait to be written: %w", ctx.Err())
	}
	select {
	case err := <-one.err:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wait for the commit: %w", ctx.Err())
	case <-w.done:
		// The writer has ended, but may have answered this write before.
		select {
		case err := <-one.err:
			return err
		default:
			return errClosed
		}
	}
}

var errClosed = fmt.Errorf("%w: it is closed", store.ErrUnavailable)

// close commits queued writes and ends the writer. A second call has no effect.
func (w *writer) close() (err error) {
	w.closing.Do(func() {
		close(w.quit)
		<-w.done
		// Close the connection before the pool: sql.DB waits for it.
		err = errors.Join(w.prepared.close(), w.conn.Close(), w.db.Close())
	})
	return err
}

func (w *writer) loop(ctx context.Context) {
	defer close(w.done)
	group := make([]*write, 0, maxGroup)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case one := <-w.queue:
			group = append(group[:0], one)
		case <-w.restart:
			// If copying fails, the log stays long, and SQLite later copies it itself (wal_autocheckpoint).
			_, _ = checkpoint(ctx, w.conn)
			continue
		case <-w.quit:
			if group = w.gather(group[:0]); len(group) == 0 {
				return
			}
		}
		group = w.collect(w.gather(group), timer)
		w.pace.begin(time.Now(), len(group))
		w.run(ctx, group)
		clear(group)
	}
}

// collect waits for more writes as long as pace permits.
func (w *writer) collect(group []*write, timer *time.Timer) []*write {
	for {
		wait := w.pace.wait(time.Now(), len(group))
		if wait == 0 {
			return group
		}
		timer.Reset(wait)
		select {
		case one := <-w.queue:
			group = w.gather(append(group, one))
		case <-timer.C:
			return w.gather(group)
		case <-w.quit:
			return w.gather(group)
		}
	}
}

// gather takes the waiting writes, without waiting for more.
func (w *writer) gather(group []*write) []*write {
	for len(group) < maxGroup {
		select {
		case one := <-w.queue:
			group = append(group, one)
		default:
			return group
		}
	}
	return group
}

// run commits a group and answers its writes.
func (w *writer) run(ctx context.Context, group []*write) {
	outcomes := make([]error, len(group))
	w.committing.Store(1)
	err := w.transact(ctx, group, outcomes)
	w.committing.Store(0)
	if err != nil {
		clear(w.epochs)
	}
	for i, one := range group {
		if err != nil {
			// Refusals are not valid either: they may depend on an earlier write of the group, which is undone now.
			one.err <- err
			continue
		}
		one.err <- outcomes[i]
	}
}

// transact runs a group in one transaction. Its error concerns the whole group; outcomes are the results of the single
// writes.
func (w *writer) transact(ctx context.Context, group []*write, outcomes []error) error {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		// This ends a transaction that a failed rollback left open, which is the only state that does not recover by
		// itself.
		_, _ = w.rollback.ExecContext(ctx)
		return broken("begin", err)
	}
	written := 0
	for i, one := range group {
		if err := one.gone(); err != nil {
			outcomes[i] = err // the caller has stopped waiting, so the write is not run
			continue
		}
		taken, err := w.runOne(ctx, one, len(group) > 1, &outcomes[i])
		if err != nil {
			_, _ = w.rollback.ExecContext(ctx)
			return err
		}
		if taken {
			written++
		}
	}
	if written == 0 {
		_, err := w.rollback.ExecContext(ctx)
		return broken("roll back", err)
	}
	if _, err := w.commit.ExecContext(ctx); err != nil {
		_, _ = w.rollback.ExecContext(ctx)
		return broken("commit", err)
	}
	w.commits.Add(1)
	return nil
}

// runOne runs one write of a group and sets its outcome. It returns an error if the transaction cannot continue. A group
// with a single write needs no savepoint: undoing the write rolls back the transaction.
func (w *writer) runOne(ctx context.Context, one *write, shared bool, outcome *error) (written bool, err error) {
	if shared {
		if _, err := w.savepoint.ExecContext(ctx); err != nil {
			return false, broken("set a savepoint", err)
		}
	}
	*outcome = one.run(ctx, w)
	if *outcome == nil {
		if shared {
			_, err = w.release.ExecContext(ctx)
		}
		return true, broken("release a savepoint", err)
	}
	if err := w.takeBack(ctx, shared); err != nil {
		// SQLite itself ends the whole transaction if the disk is full or failing.
		return false, errors.Join(err, *outcome)
	}
	if errors.Is(*outcome, errClash) && one.explain != nil {
		*outcome = one.explain(ctx, w)
	}
	return false, nil
}

func (w *writer) takeBack(ctx context.Context, shared bool) error {
	clear(w.epochs) // the write may have begun an epoch; the next new epoch will get the same id
	if shared {
		if _, err := w.rollbackTo.ExecContext(ctx); err != nil {
			return broken("roll back to a savepoint", err)
		}
		_, err := w.release.ExecContext(ctx)
		return broken("release a savepoint", err)
	}
	if _, err := w.rollback.ExecContext(ctx); err != nil {
		return broken("roll back", err)
	}
	_, err := w.begin.ExecContext(ctx)
	return broken("begin", err)
}
