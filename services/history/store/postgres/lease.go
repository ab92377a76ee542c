package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Lease is one transaction of two round trips. The rows of leases are the lock: requests follow each other, and the clock
// is read only once they are held, so that no wait makes a request believe in an older now than the one before it.
func (s *Store) Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error) {
	var response *historyv1.LeaseResponse
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		nowMs, leases, workers, err := readLeases(ctx, tx)
		if err != nil {
			return err
		}
		var changed []store.Lease
		changed, response = store.Assign(nowMs, leases, workers, request)
		return tx.SendBatch(ctx, writeLeases(nowMs, changed, request)).Close()
	})
	if err != nil {
		return nil, wrap("lease", err)
	}
	return response, nil
}

func readLeases(ctx context.Context, tx pgx.Tx) (nowMs int64, leases []store.Lease, workers map[string]int64, err error) {
	workers = map[string]int64{}
	sql := &pgx.Batch{}
	sql.Queue("SELECT partition, worker, until_ms FROM leases ORDER BY partition FOR UPDATE").Query(func(rows pgx.Rows) error {
		leases, err = pgx.CollectRows(rows, pgx.RowToStructByPos[store.Lease])
		return err
	})
	sql.Queue("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").QueryRow(func(row pgx.Row) error { return row.Scan(&nowMs) })
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
	partitions, workers, untils := make([]int32, len(changed)), make([]string, len(changed)), make([]int64, len(changed))
	for i, lease := range changed {
		partitions[i], workers[i], untils[i] = int32(lease.Partition), lease.Worker, lease.UntilMs
	}
	sql := &pgx.Batch{}
	sql.Queue(`UPDATE leases SET worker = v.worker, until_ms = v.until_ms
		FROM unnest($1::int[], $2::text[], $3::bigint[]) AS v (partition, worker, until_ms) WHERE leases.partition = v.partition`,
		partitions, workers, untils)
	sql.Queue("DELETE FROM workers WHERE seen_until_ms <= $1", nowMs)
	if request.GetStopping() {
		sql.Queue("DELETE FROM workers WHERE worker = $1", request.GetWorker())
	} else {
		sql.Queue("INSERT INTO workers (worker, seen_until_ms) VALUES ($1, $2) ON CONFLICT (worker) DO UPDATE SET seen_until_ms = excluded.seen_until_ms",
			request.GetWorker(), nowMs+int64(request.GetTtlMs()))
	}
	return sql
}
