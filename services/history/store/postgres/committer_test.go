package postgres

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/postgrestest"

	"github.com/runnelhq/runnel/services/history/store"
	"github.com/runnelhq/runnel/services/history/store/storetest"
)

// groups is a committer whose transactions the test ends one by one.
type groups struct {
	*committer
	begun chan []*store.Batch
	end   chan []error
	ctx   context.Context //nolint:containedctx // of the transaction that began last
}

func startGroups(t *testing.T, lanes int) *groups {
	t.Helper()
	g := &groups{begun: make(chan []*store.Batch, maxWaiting), end: make(chan []error)}
	g.committer = startCommitter(lanes, func(ctx context.Context, batches []*store.Batch) []error {
		g.ctx = ctx
		g.begun <- append([]*store.Batch(nil), batches...)
		return <-g.end
	})
	t.Cleanup(g.close)
	return g
}

// add joins an append of a number of events, and returns when it waits or has begun.
func (g *groups) add(ctx context.Context, partition ids.Partition, events int) <-chan error {
	done := make(chan error, 1)
	go func() { done <- g.join(ctx, batchOf(partition, events)) }()
	synctest.Wait()
	return done
}

func batchOf(partition ids.Partition, events int) *store.Batch {
	return &store.Batch{AppendRequest: &historyv1.AppendRequest{Partition: uint32(partition)}, Rows: make([]store.Row, events)}
}

func partitionsOf(batches []*store.Batch) (partitions []uint32) {
	for _, batch := range batches {
		partitions = append(partitions, batch.GetPartition())
	}
	return partitions
}

func TestAppendsCollectWhileAllLanesAreBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 1)
		first := g.add(t.Context(), 0, 1)
		require.Equal(t, []uint32{0}, partitionsOf(<-g.begun), "an append does not wait for others")
		second, third := g.add(t.Context(), 1, 1), g.add(t.Context(), 2, 1)
		require.Equal(t, 2, g.waitingNow())
		require.EqualValues(t, 1, g.committing.Load())
		failure := errors.New("failure")
		g.end <- []error{nil}
		require.NoError(t, <-first)
		require.Equal(t, []uint32{1, 2}, partitionsOf(<-g.begun))
		g.end <- []error{failure, nil}
		require.ErrorIs(t, <-second, failure)
		require.NoError(t, <-third, "each append gets its own outcome")
	})
}

func TestAPartitionHasOneAppendUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 2)
		g.add(t.Context(), 0, 1)
		g.add(t.Context(), 0, 1)
		require.Equal(t, []uint32{0}, partitionsOf(<-g.begun))
		require.Equal(t, 1, g.waitingNow(), "although a lane is free")
		g.add(t.Context(), 1, 1)
		require.Equal(t, []uint32{1}, partitionsOf(<-g.begun), "others overtake it")
		g.end <- []error{nil} // of either group
		g.end <- []error{nil}
		require.Equal(t, []uint32{0}, partitionsOf(<-g.begun))
		g.end <- []error{nil}
	})
}

func TestGroupsAreLimited(t *testing.T) {
	for name, test := range map[string]struct{ events, want int }{
		"by number": {events: 0, want: maxGroup},
		"by rows":   {events: maxGroupRows / 10, want: 10},
		"to one":    {events: maxGroupRows + 1, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := startGroups(t, 1)
				g.add(t.Context(), 0, 1)
				<-g.begun
				for p := range ids.Partition(maxGroup + 1) {
					g.add(t.Context(), p+1, test.events)
				}
				g.end <- []error{nil}
				require.Len(t, <-g.begun, test.want)
				go g.close()
				g.end <- make([]error, test.want)
			})
		})
	}
}

func TestAnAppendWithoutACallerIsNotBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 1)
		g.add(t.Context(), 0, 1)
		<-g.begun
		ctx, cancel := context.WithCancel(t.Context())
		gone := g.add(ctx, 1, 1)
		g.add(t.Context(), 2, 1)
		cancel()
		require.ErrorIs(t, <-gone, context.Canceled)
		g.end <- []error{nil}
		require.Equal(t, []uint32{2}, partitionsOf(<-g.begun))
		g.end <- []error{nil}
		synctest.Wait()
		require.Empty(t, g.room)
	})
}

func TestACallerMayStopWaitingForAGroupThatHasBegun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		gone := g.add(ctx, 0, 1)
		<-g.begun
		require.ErrorIs(t, <-gone, context.DeadlineExceeded)
		synctest.Wait()
		require.Error(t, g.ctx.Err(), "nobody waits for the group")
		g.end <- []error{nil}

		longer, cancelLonger := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancelLonger()
		g.add(t.Context(), 9, 1)
		<-g.begun
		short, cancelShort := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancelShort()
		gone, stays := g.add(short, 0, 1), g.add(longer, 1, 1)
		g.end <- []error{nil}
		<-g.begun
		require.ErrorIs(t, <-gone, context.DeadlineExceeded)
		synctest.Wait()
		require.NoError(t, g.ctx.Err(), "another caller still waits")
		g.end <- []error{nil, nil}
		require.NoError(t, <-stays)
	})
}

func TestWaitingAppendsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 1)
		g.add(t.Context(), 0, 1)
		<-g.begun
		for range maxWaiting {
			g.add(t.Context(), 0, 1)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, <-g.add(ctx, 1, 1), context.DeadlineExceeded)
		require.Equal(t, maxWaiting, g.waitingNow())
		go g.close()
		g.end <- []error{nil}
	})
}

func TestCloseEndsRunningGroupsAndRefusesTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := startGroups(t, 1)
		running := g.add(t.Context(), 0, 1)
		<-g.begun
		waits := g.add(t.Context(), 1, 1)
		var closing sync.WaitGroup
		closing.Go(g.close)
		require.ErrorIs(t, <-waits, store.ErrUnavailable)
		g.end <- []error{nil}
		require.NoError(t, <-running)
		closing.Wait()
		require.ErrorIs(t, <-g.add(t.Context(), 2, 1), store.ErrUnavailable)
	})
}

// TestALockedWatermarkDoesNotDelayOthers holds a partition as a service does that has vanished in the middle of an append. Without
// timeouts, a group that waited for it would never end.
func TestALockedWatermarkDoesNotDelayOthers(t *testing.T) {
	s := open(t, Config{URL: postgrestest.Start(t) + "&lock_timeout=0&statement_timeout=0"})
	for size := 2; size <= fewRows+2; size++ {
		batches := make([]*store.Batch, size)
		for p := range batches {
			worker := storetest.NewWorker(s, ids.Partition(p), storetest.ClockAt(int64(size*storetest.Partitions+p)<<32))
			present, err := s.Watermark(t.Context(), worker.Partition)
			require.NoError(t, err)
			worker.Watermark = present
			worker.Commit(t, worker.CreateGroup("alice", "g"))
			batch, err := store.Plan(worker.Batch())
			require.NoError(t, err)
			batches[p] = batch
		}
		tx, err := s.pool.Begin(t.Context())
		require.NoError(t, err)
		defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
		_, err = tx.Exec(t.Context(), "SELECT FROM partitions WHERE partition = 0 FOR UPDATE")
		require.NoError(t, err)
		for _, outcome := range s.commitTogether(t.Context(), batches) {
			require.ErrorIs(t, outcome, errAlone)
		}
		for _, outcome := range s.commitTogether(t.Context(), batches[1:]) {
			require.NoError(t, outcome)
		}
		require.NoError(t, tx.Rollback(t.Context()))
		_, err = s.appendAlone(t.Context(), batches[0])
		require.NoError(t, err)
	}
}

// TestALockedRowDoesNotDelayOthers holds the row of a conversation, as a rebuild of views does.
func TestALockedRowDoesNotDelayOthers(t *testing.T) {
	s := open(t, Config{URL: postgrestest.Start(t) + "&lock_timeout=0&statement_timeout=0"})
	batches := make([]*store.Batch, 3)
	for p := range batches {
		worker := storetest.NewWorker(s, ids.Partition(p), storetest.ClockAt(int64(p+1)<<40))
		present, err := s.Watermark(t.Context(), worker.Partition)
		require.NoError(t, err)
		worker.Watermark = present
		id := worker.Commit(t, worker.CreateGroup("alice", "g"))[0].GetConversationId()
		message := worker.Command(id, "alice", &conversationv1.Body{Action: &conversationv1.Body_Message{Message: &conversationv1.Message{Text: "x"}}})
		batches[p], err = store.Plan(worker.Batch(worker.Apply(t, message)...))
		require.NoError(t, err)
	}
	tx, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	_, err = tx.Exec(t.Context(), "SELECT FROM conversations WHERE conversation_id = $1 FOR UPDATE", batches[0].Rows[0].GetConversationId())
	require.NoError(t, err)
	for _, outcome := range s.commitTogether(t.Context(), batches) { // without a limit it would wait for ever
		require.ErrorIs(t, outcome, errAlone)
	}
}

// TestAFailingStatementIsNotThatOfOthers makes the rows of one partition fail as those on a damaged page do.
func TestAFailingStatementIsNotThatOfOthers(t *testing.T) {
	for code, alone := range map[string]bool{"XX001": true, "58030": true, "54000": true, "53200": true, "53100": false, "53300": false, "25006": false} {
		require.Equal(t, alone, undone(&pgconn.PgError{Code: code, SeverityUnlocalized: "ERROR"}), code)
		require.False(t, undone(&pgconn.PgError{Code: code, SeverityUnlocalized: "FATAL"}), code)
	}
	require.False(t, undone(io.ErrUnexpectedEOF))
}
