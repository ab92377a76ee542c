package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/runnelhq/runnel/services/history/store"
)

const (
	// queueLength bounds the writes that wait; the caller of the next one waits to get in.
	queueLength = 256
	// maxGroup bounds the writes of one transaction, so that nobody's answer waits for an endless one.
	maxGroup = 64
)

// writer owns the one connection that writes. It takes all writes that are waiting into one transaction, so that they
// share one fsync: while that is under way the next group gathers, without any timer. Each write has a savepoint of its
// own; one that is refused goes back to it and leaves the others untouched. Nobody is answered before the commit returned.
type writer struct {
	db         *sql.DB
	conn       *sql.Conn
	prepared   *preparer
	statements writeStatements
	begin, commit, rollback,
	savepoint, release, rollbackTo *sql.Stmt
	epochs epochs

	queue   chan *write
	restart chan struct{} // asks to copy the rest of the write-ahead log; see checkpointer
	commits atomic.Uint64
	quit    chan struct{} // closed to stop; what is queued is still written
	done    chan struct{} // closed when the goroutine has ended

	closing sync.Once
}

// write is one unit: all of it is committed or none.
type write struct {
	// gone is not nil once the caller has given up.
	gone func() error
	// run writes. An error takes back everything it did.
	run action
	// explain, when set, turns errClash of run into what to say; it runs after run was taken back, in the same transaction.
	explain action
	err     chan error // of one element: the writer never waits for a caller
}

// action runs SQL on the writer's connection. Its context is the writer's: a caller that gives up must not interrupt a transaction that
// carries the writes of others.
type action func(ctx context.Context, w *writer) error

// errClash says that a write met a key or a head that it did not expect.
var errClash = errors.New("clash with what is stored")

func startWriter(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("take the writing connection: %w", err)
	}
	w := &writer{
		db: db, conn: conn, epochs: epochs{},
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

// do queues a write and waits for its outcome. When ctx ends first the outcome is unknown.
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
		// The writer has ended; it may have answered before.
		select {
		case err := <-one.err:
			return err
		default:
			return errClosed
		}
	}
}

var errClosed = fmt.Errorf("%w: it is closed", store.ErrUnavailable)

// close writes what is queued and ends the writer. A second call does nothing more.
func (w *writer) close() (err error) {
	w.closing.Do(func() {
		close(w.quit)
		<-w.done
		// Connection first: sql.DB waits for it.
		err = errors.Join(w.prepared.close(), w.conn.Close(), w.db.Close())
	})
	return err
}

func (w *writer) loop(ctx context.Context) {
	defer close(w.done)
	group := make([]*write, 0, maxGroup)
	for {
		select {
		case one := <-w.queue:
			group = append(group[:0], one)
		case <-w.restart:
			// When it fails the log stays long, and SQLite itself copies it in the end (wal_autocheckpoint).
			_, _ = checkpoint(ctx, w.conn)
			continue
		case <-w.quit:
			if group = w.gather(group[:0]); len(group) == 0 {
				return
			}
		}
		group = w.gather(group)
		w.run(ctx, group)
		clear(group)
	}
}

// gather takes what is waiting, without waiting for more.
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

// run commits a group and answers everybody in it.
func (w *writer) run(ctx context.Context, group []*write) {
	outcomes := make([]error, len(group))
	err := w.transact(ctx, group, outcomes)
	if err != nil {
		clear(w.epochs)
	}
	for i, one := range group {
		if err != nil {
			// Even a refusal cannot stand: it may rest on what an earlier write of the group did, which is undone now.
			one.err <- err
			continue
		}
		one.err <- outcomes[i]
	}
}

// transact runs a group in one transaction. Its error concerns all of the group; outcomes are those of each.
func (w *writer) transact(ctx context.Context, group []*write, outcomes []error) error {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		// A transaction left open by a failed rollback is the one state that would not heal by itself.
		_, _ = w.rollback.ExecContext(ctx)
		return broken("begin", err)
	}
	written := 0
	for i, one := range group {
		if err := one.gone(); err != nil {
			outcomes[i] = err // its caller has gone; nothing was done
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

// runOne runs one write of a group. The error means that the transaction cannot go on; the write's own outcome is
// separate. A group of one needs no savepoint: taking it back is rolling back.
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
		// SQLite ends the whole transaction by itself when the disk is full or failing.
		return false, errors.Join(err, *outcome)
	}
	if errors.Is(*outcome, errClash) && one.explain != nil {
		*outcome = one.explain(ctx, w)
	}
	return false, nil
}

func (w *writer) takeBack(ctx context.Context, shared bool) error {
	clear(w.epochs) // the write may have begun one, whose id goes to the next that is begun
	if shared {
		if _, err := w.rollbackTo.ExecContext(ctx); err != nil {
			return broken("go back to a savepoint", err)
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
