package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// Lease runs as one write. It sees all leases, and no other write happens in between.
func (s *Store) Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error) {
	var response *historyv1.LeaseResponse
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) (err error) {
		response, err = w.lease(ctx, s.now().UnixMilli(), request)
		return err
	}, nil)
	if err != nil {
		// The writer may still be running after ctx has ended, so response must not be read.
		return nil, wrap("lease", err)
	}
	return response, nil
}

func (w *writer) lease(ctx context.Context, nowMs int64, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error) {
	leases, err := w.readLeases(ctx)
	if err != nil {
		return nil, err
	}
	workers, err := w.readWorkers(ctx)
	if err != nil {
		return nil, err
	}
	changed, response := store.Assign(nowMs, leases, workers, request)
	for _, lease := range changed {
		if _, err := w.statements.setLease.ExecContext(ctx, lease.Worker, lease.UntilMs, lease.Wanted, uint32(lease.Partition)); err != nil {
			return nil, err
		}
	}
	if _, err := w.statements.dropWorkers.ExecContext(ctx, nowMs); err != nil {
		return nil, err
	}
	if request.GetStopping() {
		_, err = w.statements.dropWorker.ExecContext(ctx, request.GetWorker())
	} else {
		_, err = w.statements.setWorker.ExecContext(ctx, request.GetWorker(), nowMs+int64(request.GetTtlMs()))
	}
	return response, err
}

func (w *writer) readLeases(ctx context.Context) (leases []store.Lease, err error) {
	rows, err := w.statements.leases.QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var lease store.Lease
		if err := rows.Scan(&lease.Partition, &lease.Worker, &lease.UntilMs, &lease.Wanted); err != nil {
			return nil, err
		}
		leases = append(leases, lease)
	}
	return leases, rows.Err()
}

func (w *writer) readWorkers(ctx context.Context) (workers map[string]int64, err error) {
	rows, err := w.statements.workers.QueryContext(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	workers = map[string]int64{}
	for rows.Next() {
		var worker string
		var seenUntil int64
		if err := rows.Scan(&worker, &seenUntil); err != nil {
			return nil, err
		}
		workers[worker] = seenUntil
	}
	return workers, rows.Err()
}

// Leases runs two queries; a change between them is visible in the next answer.
func (s *Store) Leases(ctx context.Context) (*historyv1.ListLeasesResponse, error) {
	nowMs := s.now().UnixMilli()
	response := &historyv1.ListLeasesResponse{}
	err := each(ctx, s.read.listLeases, func(rows *sql.Rows) (bool, error) {
		lease := &historyv1.PartitionLease{Watermark: &historyv1.Watermark{}}
		response.Leases = append(response.Leases, lease)
		var untilMs int64
		err := rows.Scan(&lease.Partition, &lease.Worker, &untilMs, &lease.Wanted, &lease.Watermark.Stream, &lease.Watermark.Epoch, &lease.Watermark.Sequence, &lease.Watermark.TimeNs)
		if lease.GetWorker() != "" {
			lease.LiveForMs = untilMs - nowMs
		}
		return true, err
	})
	if err == nil {
		err = each(ctx, s.read.listWorkers, func(rows *sql.Rows) (bool, error) {
			worker := &historyv1.Worker{}
			response.Workers = append(response.Workers, worker)
			return true, rows.Scan(&worker.Worker, &worker.LiveForMs)
		}, nowMs)
	}
	return response, wrap("list leases", err)
}

// Move stores a request, if its worker is live.
func (s *Store) Move(ctx context.Context, partition ids.Partition, worker string) error {
	err := s.writer.do(ctx, func(ctx context.Context, w *writer) error {
		result, err := w.statements.setWanted.ExecContext(ctx, worker, uint32(partition), worker, worker, s.now().UnixMilli())
		if err != nil {
			return err
		}
		if moved, err := result.RowsAffected(); err != nil || moved == 1 {
			return err
		}
		return store.ErrNoWorker
	}, nil)
	return answer(fmt.Sprintf("move partition %d", partition), err)
}
