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

// pool hands out connections. Nobody waits for one longer than patience: when the database is slow or away, its callers
// are better off hearing so at once than standing in a line that only grows. And clients' reading may use no more than
// half of the connections, so that a storm of returning clients never holds up commits and the renewal of leases.
type pool struct {
	*pgxpool.Pool
	patience time.Duration
	readers  chan struct{} // one token for each connection that reads for clients
	demoted  rate.Sometimes

	waiting atomic.Int64
	givenUp atomic.Uint64
}

// lane is one of the ways to a connection: reading or working. The connection is given back when use returns.
type lane func(ctx context.Context, use func(conn *pgxpool.Conn) error) error

func newPool(connections *pgxpool.Pool, patience time.Duration) *pool {
	return &pool{
		Pool: connections, patience: patience,
		readers: make(chan struct{}, max(1, connections.Config().MaxConns/2)),
		demoted: rate.Sometimes{Interval: time.Second},
	}
}

// reading is for what clients ask for.
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

// working is for what the log and its owners need.
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
		// The server has become a standby. Its name may lead to the new primary by now, but only new connections go there.
		p.demoted.Do(p.Reset)
	}
	return err
}

// codeReadOnly is what a write gets on a standby.
const codeReadOnly = "25006"

// none says why there is no connection: the caller's context has ended, or the database is away or too busy.
func (p *pool) none(ctx context.Context, err error) error {
	p.givenUp.Add(1)
	if ctx.Err() != nil {
		return fmt.Errorf("wait for a connection: %w", ctx.Err())
	}
	// In words only: to the caller it is not a context that ended.
	return fmt.Errorf("%w: no connection within %s: %s", store.ErrUnavailable, p.patience, err.Error())
}

// Stats tells how the connections are doing.
func (s *Store) Stats() store.Stats {
	stat := s.pool.Stat()
	return store.Stats{
		Backend: "postgres",
		Busy:    int(stat.AcquiredConns()), Open: int(stat.TotalConns()), MaxConnections: int(stat.MaxConns()),
		Waiting: int(s.pool.waiting.Load()), GivenUp: s.pool.givenUp.Load(),
	}
}
