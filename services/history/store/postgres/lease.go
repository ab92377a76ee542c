package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Lease is one transaction of two round trips. It locks the rows of leases, which serialises requests. It reads the clock
// only after the rows are locked, so that a request that waited never uses an older time than the request before it.
func (s *Store) Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error) {
	var response *historyv1.LeaseResponse
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error {
		return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			nowMs, leases, workers, err := readLeases(ctx, tx)
			if err != nil {
				return err
			}
			var changed []store.Lease
			changed, response = store.Assign(nowMs, leases, workers, request)
			return tx.SendBatch(ctx, writeLeases(nowMs, changed, request)).Close()
		})
	})
	if err != nil {
		return nil, wrap("lease", err)
	}
	return response, nil
}

func readLeases(ctx context.Context, tx pgx.Tx) (nowMs int64, leases []store.Lease, workers map[string]int64, err error) {
	workers = map[string]int64{}
	sql := &pgx.Batch{}
	sql.Queue("SELECT partition, worker, until_ms, wanted FROM leases ORDER BY partition FOR UPDATE").Query(func(rows pgx.Rows) error {
		leases, err = pgx.CollectRows(rows, pgx.RowToStructByPos[store.Lease])
		return err
	})
	sql.Queue("SELECT " + clockMs).QueryRow(func(row pgx.Row) error { return row.Scan(&nowMs) })
	sql.Queue("SELECT worker, seen_until_ms FROM workers").Query(func(rows pgx.Rows) error {
		var worker string
		var seenUntil int64
		_, err := pgx.ForEachRow(rows, []any{&worker, &seenUntil}, func() error {
			workers[worker] = seenUntil
			return nil
		})
		return err
	})
	err = tx.SendBatch(ctx, sql).Close()
	return nowMs, leases, workers, err
}

func writeLeases(nowMs int64, changed []store.Lease, request *historyv1.LeaseRequest) *pgx.Batch {
	n := len(changed)
	partitions, workers, untils, wanted := make([]int32, n), make([]string, n), make([]int64, n), make([]string, n)
	for i, lease := range changed {
		partitions[i], workers[i], untils[i], wanted[i] = int32(lease.Partition), lease.Worker, lease.UntilMs, lease.Wanted
	}
	sql := &pgx.Batch{}
	sql.Queue(`UPDATE leases SET worker = v.worker, until_ms = v.until_ms, wanted = v.wanted
		FROM unnest($1::int[], $2::text[], $3::bigint[], $4::text[]) AS v (partition, worker, until_ms, wanted) WHERE leases.partition = v.partition`,
		partitions, workers, untils, wanted)
	sql.Queue("DELETE FROM workers WHERE seen_until_ms <= $1", nowMs)
	if request.GetStopping() {
		sql.Queue("DELETE FROM workers WHERE worker = $1", request.GetWorker())
	} else {
		sql.Queue("INSERT INTO workers (worker, seen_until_ms) VALUES ($1, $2) ON CONFLICT (worker) DO UPDATE SET seen_until_ms = excluded.seen_until_ms",
			request.GetWorker(), nowMs+int64(request.GetTtlMs()))
	}
	return sql
}

const (
	// clockMs is the store's clock.
	clockMs    = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
	listLeases = `SELECT partition, worker, CASE worker WHEN '' THEN 0 ELSE until_ms - ` + clockMs + ` END, wanted, stream, epoch, sequence, time_ns
		FROM leases JOIN partitions USING (partition) ORDER BY partition`
	listWorkers = `SELECT worker, seen_until_ms - now.ms FROM workers, (SELECT ` + clockMs + `) AS now (ms) WHERE seen_until_ms > now.ms ORDER BY worker`
	setWanted   = `UPDATE leases SET wanted = $2
		WHERE partition = $1 AND ($2 = '' OR EXISTS (SELECT 1 FROM workers WHERE worker = $2 AND seen_until_ms > ` + clockMs + `))`
)

// Leases is two queries in one round trip; a change between them is visible in the next answer.
func (s *Store) Leases(ctx context.Context) (*historyv1.ListLeasesResponse, error) {
	response := &historyv1.ListLeasesResponse{}
	sql := &pgx.Batch{}
	sql.Queue(listLeases).Query(func(rows pgx.Rows) error {
		return every(rows, func() error {
			lease := &historyv1.PartitionLease{Watermark: &historyv1.Watermark{}}
			response.Leases = append(response.Leases, lease)
			return rows.Scan(&lease.Partition, &lease.Worker, &lease.LiveForMs, &lease.Wanted,
				&lease.Watermark.Stream, &lease.Watermark.Epoch, &lease.Watermark.Sequence, &lease.Watermark.TimeNs)
		})
	})
	sql.Queue(listWorkers).Query(func(rows pgx.Rows) error {
		return every(rows, func() error {
			worker := &historyv1.Worker{}
			response.Workers = append(response.Workers, worker)
			return rows.Scan(&worker.Worker, &worker.LiveForMs)
		})
	})
	err := s.pool.working(ctx, func(conn *pgxpool.Conn) error { return conn.SendBatch(ctx, sql).Close() })
	return response, wrap("list leases", err)
}

// Move stores a request if its worker is live. If the worker stops at the same moment, the request may still be stored;
// the next Lease of any worker deletes it.
func (s *Store) Move(ctx context.Context, partition ids.Partition, worker string) error {
	return s.change(ctx, fmt.Sprintf("move partition %d", partition), store.ErrNoWorker, setWanted, uint32(partition), worker)
}
