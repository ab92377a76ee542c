package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/time/rate"

	"github.com/runnelhq/runnel/services/history/store"
)

// pool provides connections. No call waits longer than patience for a connection: if the database is slow or unreachable,
// an early error is better for callers than a growing queue. Reads for clients may use at most half of the connections.
// Therefore many clients that reconnect at once never delay commits and the renewal of leases.
type pool struct {
	*pgxpool.Pool
	patience time.Duration
	readers  chan struct{} // one token for each connection that reads for clients
	demoted  rate.Sometimes

	waiting atomic.Int64
	givenUp atomic.Uint64
}

// lane gets a connection for a purpose: reading or working. The connection is released when use returns.
type lane func(ctx context.Context, use func(conn *pgxpool.Conn) error) error

func newPool(connections *pgxpool.Pool, patience time.Duration) *pool {
	return &pool{
		Pool: connections, patience: patience,
		readers: make(chan struct{}, max(1, connections.Config().MaxConns/2)),
		demoted: rate.Sometimes{Interval: time.Second},
	}
}

// reading is the lane for reads on behalf of clients.
func (p *pool) reading(ctx context.Context, use func(conn *pgxpool.Conn) error) error {
	patience, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	p.waiting.Add(1)
	select {
	case p.readers <- struct{}{}:
		p.waiting.Add(-1)
		defer func() { <-p.readers }()
	case <-patience.Done():
		p.waiting.Add(-1)
		return p.none(ctx, patience.Err())
	}
	return p.use(ctx, patience, use)
}

// working is the lane for commits, leases and all other calls.
func (p *pool) working(ctx context.Context, use func(conn *pgxpool.Conn) error) error {
	patience, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	return p.use(ctx, patience, use)
}

func (p *pool) use(ctx, patience context.Context, use func(conn *pgxpool.Conn) error) error {
	p.waiting.Add(1)
	conn, err := p.Acquire(patience)
	p.waiting.Add(-1)
	if err != nil {
		return p.none(ctx, err)
	}
	defer conn.Release()
	err = use(conn)
	var failed *pgconn.PgError
	if errors.As(err, &failed) && failed.Code == codeReadOnly {
		// The server has become a standby. Its name may already resolve to the new primary, but only new connections
		// reach it.
		p.demoted.Do(p.Reset)
	}
	return err
}

// codeReadOnly is the error of a write on a standby.
const codeReadOnly = "25006"

// none returns the error for a call without a connection: the caller's context has ended, or the database is unreachable
// or too busy.
func (p *pool) none(ctx context.Context, err error) error {
	p.givenUp.Add(1)
	if ctx.Err() != nil {
		return fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	// The error is included as text only: callers must not take it for the end of their context.
	return fmt.Errorf("%w: no connection within %s: %s", store.ErrUnavailable, p.patience, err.Error())
}

// Stats returns the statistics of the connections.
func (s *Store) Stats() store.Stats {
	stat := s.pool.Stat()
	return store.Stats{
		Backend: "postgres",
		Busy:    int(stat.AcquiredConns()), Open: int(stat.TotalConns()), MaxConnections: int(stat.MaxConns()),
		Waiting: int(s.pool.waiting.Load()) + s.committer.waitingNow(), GivenUp: s.pool.givenUp.Load(),
		Commits: s.commits.Load(), Committing: int(s.committer.committing.Load()),
	}
}
