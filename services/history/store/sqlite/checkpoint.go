package sqlite

import (
	"context"
	"database/sql"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	checkpointInterval = 250 * time.Millisecond
	// restartPages is the length of the write-ahead log, in pages of 4 KiB, at which it should restart from its beginning.
	restartPages = 8000
	// autocheckpointPages is the log length at which SQLite makes the writer copy the whole log: 256 MiB.
	autocheckpointPages = 64000
)

// checkpointer copies committed pages from the write-ahead log into the database file. It uses a separate connection and
// runs concurrently with the writer. By default SQLite lets the writer copy, which would delay every waiting message by
// tens of milliseconds. While the log is written continuously, the checkpointer never reaches its end. Therefore, when
// the log has grown long, the writer copies the small rest, after which the log can restart.
type checkpointer struct {
	db     *sql.DB
	writer *writer
	log    *slog.Logger
	quit   chan struct{}
	done   chan struct{}

	copies, failed atomic.Uint64

	closing sync.Once
}

func startCheckpointer(ctx context.Context, db *sql.DB, w *writer, log *slog.Logger) *checkpointer {
	c := &checkpointer{db: db, writer: w, log: log, quit: make(chan struct{}), done: make(chan struct{})}
	go c.loop(context.WithoutCancel(ctx))
	return c
}

func (c *checkpointer) loop(ctx context.Context) {
	defer close(c.done)
	ticker := time.NewTicker(checkpointInterval)
	defer ticker.Stop()
	var seen uint64
	for {
		select {
		case <-c.quit:
			return
		case <-ticker.C:
		}
		commits := c.writer.commits.Load()
		if commits == seen {
			continue
		}
		seen = commits
		pages, err := checkpoint(ctx, c.db)
		if err == nil && pages > restartPages {
			// Copy again the pages that were committed meanwhile, so that almost nothing is left for the writer.
			if _, err = checkpoint(ctx, c.db); err == nil {
				select {
				case c.writer.restart <- struct{}{}:
				default: // the writer was already asked
				}
			}
		}
		if err == nil {
			c.copies.Add(1)
		} else {
			c.failed.Add(1)
			c.log.WarnContext(ctx, "the write-ahead log was not copied; trying again", "error", err)
		}
	}
}

func (c *checkpointer) close() (err error) {
	c.closing.Do(func() {
		close(c.quit)
		<-c.done
		err = c.db.Close()
	})
	return err
}

// execer is a connection or a pool.
type execer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// checkpoint copies as many pages as it can without blocking readers or the writer, and returns the length of the log in
// pages.
func checkpoint(ctx context.Context, db execer) (pages int, err error) {
	var busy, copied int
	err = db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(PASSIVE)").Scan(&busy, &pages, &copied)
	return pages, wrap("copy the write-ahead log", err)
}
