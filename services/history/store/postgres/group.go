package postgres

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

// A group is several appends of different partitions in one transaction. If one of its statements fails, everything is undone,
// and each append is sent alone, which finds out whose failure it is, and what to answer. A group never waits for the lock of a
// watermark, because all its appends would wait: a watermark that another transaction has locked fails the group. Therefore two
// groups cannot deadlock.

const (
	// setGroupLockTimeout limits how long a group waits for any other row that is locked, for example by a rebuild of views: each of
	// its appends would wait. It lasts for the transaction.
	setGroupLockTimeout = "SELECT set_config('lock_timeout', '100ms', true)"
	moveFreeWatermark   = `WITH moved AS (UPDATE partitions SET sequence = $5, time_ns = $6 WHERE partition = (
		SELECT partition FROM partitions WHERE partition = $1 AND stream = $2 AND epoch = $3 AND sequence = $4 FOR NO KEY UPDATE SKIP LOCKED)
		RETURNING 1)
		SELECT runnel_require(count(*) = 1, '` + requireWatermark + `') FROM moved`
	moveFreeWatermarks = `WITH held AS MATERIALIZED (
		SELECT v.partition, v.next, v.time_ns
		FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS v (partition, stream, epoch, sequence, next, time_ns)
		JOIN partitions AS p ON p.partition = v.partition AND p.stream = v.stream AND p.epoch = v.epoch AND p.sequence = v.sequence
		FOR NO KEY UPDATE OF p SKIP LOCKED),
		moved AS (UPDATE partitions SET sequence = held.next, time_ns = held.time_ns FROM held WHERE partitions.partition = held.partition RETURNING 1)
		SELECT runnel_require(count(*) = $7, '` + requireWatermark + `') FROM moved`
)

// shareable reports whether an append may be part of a group. An erasure may not, because it may take long; nor may an
// append that begins an epoch, because it needs the store's clock first.
func shareable(batch *store.Batch) bool {
	return !batch.Begins() && !conversation.HasErasure(batch.GetEffects()) && !store.BugNoWatermarkCheck && !store.BugEffectsOutsideTransaction
}

// commitTogether decides appends of different partitions, and returns an outcome for each: nil, errAlone, or an error after
// which the outcome is unknown.
func (s *Store) commitTogether(ctx context.Context, batches []*store.Batch) []error {
	err := s.send(ctx, groupStatements(batches))
	if undone(err) {
		err = errAlone
	}
	for i := 0; err == nil && i < len(batches); i++ {
		s.appended(ids.Partition(batches[i].GetPartition())) // also if its caller has stopped waiting
	}
	return slices.Repeat([]error{err}, len(batches))
}

func groupStatements(batches []*store.Batch) *pgx.Batch {
	sql := &pgx.Batch{}
	sql.Queue(setGroupLockTimeout)
	members := make([]member, len(batches))
	for i, batch := range batches {
		members[i] = member{Batch: batch, epoch: ids.Epoch(batch.GetExpected().GetEpoch())}
	}
	queueWatermarks(sql, members)
	queueRows(sql, members)
	return sql
}

// queueWatermarks moves the watermarks of appends that continue an epoch.
func queueWatermarks(sql *pgx.Batch, members []member) {
	n := len(members)
	if n <= fewRows {
		for _, m := range members {
			sql.Queue(moveFreeWatermark, m.GetPartition(), m.GetExpected().GetStream(), uint64(m.epoch), m.GetExpected().GetSequence(),
				m.GetNext().GetSequence(), m.GetNext().GetTimeNs())
		}
		return
	}
	partitions, streams := make([]int32, n), make([]string, n)
	epochs, sequences, nexts, times := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, m := range members {
		partitions[i], streams[i] = int32(m.GetPartition()), m.GetExpected().GetStream()
		epochs[i], sequences[i] = int64(m.epoch), int64(m.GetExpected().GetSequence())
		nexts[i], times[i] = int64(m.GetNext().GetSequence()), m.GetNext().GetTimeNs()
	}
	sql.Queue(moveFreeWatermarks, partitions, streams, epochs, sequences, nexts, times, n)
}

// undone reports whether an error is that of a statement of a group and may concern a single append, for example the one whose page
// is damaged: the group was undone, and its other appends may succeed alone. An error of the connection is none of these.
func undone(err error) bool {
	var failed *pgconn.PgError
	if !errors.As(err, &failed) || failed.SeverityUnlocalized != "ERROR" {
		return false
	}
	switch failed.Code {
	case codeReadOnly, codeDiskFull, codeTooManyConnections: // these concern all appends
		return false
	}
	return true
}

const (
	codeDiskFull           = "53100"
	codeTooManyConnections = "53300"
)
