package postgres

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/history/store"
)

// A group is several appends of different partitions in one transaction, all with the same statements: a row of the
// watermarks for each append, and a row of the events for each event. If a statement fails, everything is undone. The appends
// whose watermarks did not move leave the group, and the rest is sent again; after any other failure each append is sent
// alone, which finds out whose failure it is, and what to answer.

const requireWatermarks = "watermarks"

// moveWatermarks moves the watermarks of appends that continue an epoch. It never waits for the lock of another transaction,
// because the whole group would wait with it: a watermark that is locked counts as not moved. Therefore two groups cannot
// deadlock. Its error lists the partitions whose watermarks moved.
const moveWatermarks = `WITH held AS MATERIALIZED (
		SELECT v.partition, v.next, v.time_ns
		FROM unnest($1::int[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS v (partition, stream, epoch, sequence, next, time_ns)
		JOIN partitions AS p ON p.partition = v.partition AND p.stream = v.stream AND p.epoch = v.epoch AND p.sequence = v.sequence
		FOR NO KEY UPDATE OF p SKIP LOCKED),
	moved AS (UPDATE partitions SET sequence = held.next, time_ns = held.time_ns FROM held WHERE partitions.partition = held.partition
		RETURNING partitions.partition)
	SELECT runnel_require(count(*) = $7, '` + requireWatermarks + ` ' || coalesce(string_agg(partition::text, ' '), '')) FROM moved`

// shareable reports whether an append may be part of a group. An erasure may not, because it may take long; nor may an
// append that begins an epoch, because it needs the store's clock first.
func shareable(batch *store.Batch) bool {
	return !batch.Begins() && !conversation.HasErasure(batch.GetEffects()) && !store.BugNoWatermarkCheck && !store.BugEffectsOutsideTransaction
}

// commitTogether decides appends of different partitions, and returns an outcome for each: nil, errAlone, or an error after
// which the outcome is unknown.
func (s *Store) commitTogether(ctx context.Context, batches []*store.Batch) []error {
	outcomes := make([]error, len(batches))
	err := s.send(ctx, groupStatements(batches))
	if moved, some := movedOf(err); some {
		// Those that did not move are answered after the others, or their second try would wait for the locks of this one.
		var rest []*store.Batch
		for i, batch := range batches {
			if slices.Contains(moved, ids.Partition(batch.GetPartition())) {
				rest = append(rest, batch)
			} else {
				outcomes[i] = errAlone
			}
		}
		err = nil
		if len(rest) > 0 {
			err = s.send(ctx, groupStatements(rest))
		}
	}
	if err != nil && undone(err) {
		err = errAlone
	}
	for i := range outcomes {
		if outcomes[i] == nil {
			outcomes[i] = err
		}
	}
	return outcomes
}

func groupStatements(batches []*store.Batch) *pgx.Batch {
	n := len(batches)
	members, partitions, streams := make([]member, n), make([]int32, n), make([]string, n)
	epochs, sequences, nexts, times := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	for i, batch := range batches {
		expected, next := batch.GetExpected(), batch.GetNext()
		members[i] = member{Batch: batch, epoch: ids.Epoch(expected.GetEpoch())}
		partitions[i], streams[i] = int32(batch.GetPartition()), expected.GetStream()
		epochs[i], sequences[i] = int64(expected.GetEpoch()), int64(expected.GetSequence())
		nexts[i], times[i] = int64(next.GetSequence()), next.GetTimeNs()
	}
	sql := &pgx.Batch{}
	sql.Queue(moveWatermarks, partitions, streams, epochs, sequences, nexts, times, n)
	queueRows(sql, members)
	return sql
}

// movedOf returns the partitions whose watermarks moved, if that is what an error of moveWatermarks says.
func movedOf(err error) (moved []ids.Partition, some bool) {
	var failed *pgconn.PgError
	if !errors.As(err, &failed) || failed.Code != codeRequired {
		return nil, false
	}
	list, some := strings.CutPrefix(failed.Message, requireWatermarks)
	for field := range strings.FieldsSeq(list) {
		if partition, err := strconv.ParseUint(field, 10, 32); err == nil {
			moved = append(moved, ids.Partition(partition))
		}
	}
	return moved, some
}

// undone reports whether an error is that of a statement of a group and may concern a single append: the group was undone, and
// the same appends may succeed alone.
func undone(err error) bool {
	var failed *pgconn.PgError
	if !errors.As(err, &failed) {
		return false
	}
	switch failed.Code {
	case codeRequired, codeDeadlock, codeLockTimeout, codeCanceled:
		return true
	}
	return lasting(failed.Code)
}

const (
	codeDeadlock    = "40P01"
	codeLockTimeout = "55P03"
	codeCanceled    = "57014" // by statement_timeout
)
