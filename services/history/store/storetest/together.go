package storetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// testTogether makes appends of several partitions arrive together, so that they share a commit. Each append must get the
// same outcome as alone.
func testTogether(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("every mix of two to four appends", func(t *testing.T) {
		db := subject.New(t)
		slots := make([]*slot, 8)
		for i := range slots {
			slots[i] = newSlot(t, db, ids.Partition(i))
		}
		blockers := newBlockers(t, db)
		for size := 2; size <= 4; size++ {
			for n, mix := range mixes(size) {
				// Each kind comes first in some mixes, and last in others.
				together(t, blockers, slots, slices.Concat(mix[n%size:], mix[:n%size]))
			}
		}
		// Larger groups are committed with other statements.
		for _, k := range kinds {
			together(t, blockers, slots, append(slices.Repeat([]kind{good}, 7), k))
		}
		together(t, blockers, slots, append([]kind{good, good}, kinds...))
		for _, s := range slots {
			require.Len(t, VerifyLog(t, db, s.id), s.events)
		}
	})

	t.Run("appends of one partition are decided in the order of their arrival", func(t *testing.T) {
		db, worker, id := group(t, subject)
		zombie := worker.Fork()
		arriving := newArrivals(t, db, newBlockers(t, db))
		var outcomes []<-chan outcome
		for range 3 {
			batch := worker.Batch(worker.Apply(t, worker.Command(id, "alice", Message("m")))...)
			outcomes = append(outcomes, arriving.add(t.Context(), batch))
			worker.Watermark = proto.CloneOf(batch.GetNext())
			worker.Watermark.Epoch = batch.GetExpected().GetEpoch()
		}
		late := arriving.add(t.Context(), zombie.Batch(zombie.Apply(t, zombie.Command(id, "alice", Message("late")))...))
		arriving.release()
		for _, o := range outcomes {
			require.NoError(t, (<-o).err)
		}
		var moved *store.WatermarkError
		require.ErrorAs(t, (<-late).err, &moved)
		require.True(t, proto.Equal(worker.Watermark, moved.Present))
		requireWatermark(t, db, 3, worker.Watermark)
		require.Len(t, VerifyLog(t, db, id), 4)
	})

	t.Run("appends that arrive together share a transaction", func(t *testing.T) {
		db := subject.New(t)
		blockers := newBlockers(t, db)
		workers := make([]*Worker, 8)
		for p := range workers {
			workers[p] = NewWorker(db, ids.Partition(p), ClockAt(int64(p)<<32))
			workers[p].Commit(t, workers[p].CreateGroup("alice", "g"))
		}
		before := db.Stats().Commits
		arriving := newArrivals(t, db, blockers)
		var outcomes []<-chan outcome
		for _, worker := range workers {
			outcomes = append(outcomes, arriving.add(t.Context(), worker.Batch()))
		}
		arriving.release()
		for _, o := range outcomes {
			require.NoError(t, (<-o).err)
		}
		require.Equal(t, uint64(db.Lanes+1), db.Stats().Commits-before)
	})
}

// kind is a kind of append, by its outcome.
type kind string

const (
	good       kind = "good"
	superseded kind = "superseded"
	duplicate  kind = "duplicate"
	wrongHead  kind = "wrong head"
	poison     kind = "poison"
	cancelled  kind = "cancelled"
)

var kinds = []kind{good, superseded, duplicate, wrongHead, poison, cancelled}

// mixes returns all combinations of a number of kinds, with repetition.
func mixes(size int) [][]kind {
	found := [][]kind{nil}
	for range size {
		var longer [][]kind
		for _, mix := range found {
			for i, k := range kinds {
				if len(mix) == 0 || slices.Index(kinds, mix[len(mix)-1]) <= i {
					longer = append(longer, append(slices.Clone(mix), k))
				}
			}
		}
		found = longer
	}
	return found
}

// slot is a partition that sends appends of all kinds.
type slot struct {
	*Worker
	db     *Database
	id     string
	stale  *Worker // is behind by one event
	events int
}

func newSlot(t *testing.T, db *Database, partition ids.Partition) *slot {
	t.Helper()
	s := &slot{Worker: NewWorker(db, partition, ClockAt(int64(partition)<<32)), db: db}
	s.id = s.Commit(t, s.CreateGroup("alice", "g"))[0].GetConversationId()
	s.stale = s.Fork()
	s.Commit(t, s.Command(s.id, "alice", Message("m")))
	s.events = 2
	return s
}

// together sends a mix of appends that arrive together, each from its own slot, and checks the outcomes.
func together(t *testing.T, blockers []*Worker, slots []*slot, mix []kind) {
	t.Helper()
	name := strings.Trim(fmt.Sprint(mix), "[]")
	arriving := newArrivals(t, slots[0].db, blockers)
	checks := make([]func(outcome), len(mix))
	outcomes := make([]<-chan outcome, len(mix))
	var cancels []context.CancelFunc
	for i, k := range mix {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if k == cancelled {
			cancels = append(cancels, cancel)
		}
		var batch *historyv1.AppendRequest
		batch, checks[i] = slots[i].make(t, k, name)
		outcomes[i] = arriving.add(ctx, batch)
	}
	for _, cancel := range cancels {
		cancel()
	}
	arriving.release()
	for i, check := range checks {
		check(<-outcomes[i])
		requireWatermark(t, slots[i].db, slots[i].Partition, slots[i].Watermark)
	}
}

// make makes an append of a kind, and a function that checks its outcome.
func (s *slot) make(t *testing.T, k kind, mix string) (*historyv1.AppendRequest, func(outcome)) {
	t.Helper()
	next := s.Fork()
	switch k {
	case good:
		batch := next.Batch(next.Apply(t, next.Command(s.id, "alice", Message("good")))...)
		return batch, func(o outcome) {
			require.NoError(t, o.err, mix)
			require.Empty(t, o.response.GetDuplicates(), mix)
			require.Equal(t, s.Watermark.GetEpoch(), o.response.GetEpoch(), mix)
			s.stale = s.Fork()
			s.Worker = next
			s.Watermark = proto.CloneOf(batch.GetNext())
			s.Watermark.Epoch = o.response.GetEpoch()
			s.events++
			requireEvents(t, batch.GetEvents(), ReadAll(t, s.db, s.id)[s.events-1:])
		}
	case superseded:
		// Without events: no other check than that of the watermark can refuse it.
		return s.stale.Batch(), func(o outcome) {
			var moved *store.WatermarkError
			require.ErrorAs(t, o.err, &moved, mix)
			require.True(t, proto.Equal(s.Watermark, moved.Present), mix)
		}
	case duplicate:
		stored := ReadAll(t, s.db, s.id)
		again := proto.CloneOf(stored[len(stored)-1])
		again.Seq++
		return next.Batch(again), func(o outcome) {
			require.NoError(t, o.err, mix)
			require.Len(t, o.response.GetDuplicates(), 1, mix)
			require.True(t, proto.Equal(stored[len(stored)-1], o.response.GetDuplicates()[0].GetFirst()), mix)
		}
	case wrongHead:
		events := next.Apply(t, next.Command(s.id, "alice", Message("1")), next.Command(s.id, "alice", Message("2")))
		return next.Batch(events[1]), func(o outcome) {
			requireTaken(t, o.err, ids.Conversation(s.id), ids.Seq(s.events)+2, ids.Seq(s.events))
		}
	case poison:
		batch := next.Batch(next.Apply(t, next.Command(s.id, "alice", Message("poison")))...)
		batch.Events[0].Hash = nil // every table rejects a missing hash
		return batch, func(o outcome) { require.ErrorIs(t, o.err, store.ErrDefect, mix) }
	default:
		return next.Batch(next.Apply(t, next.Command(s.id, "alice", Message("cancelled")))...), func(o outcome) {
			require.ErrorIs(t, o.err, context.Canceled, mix)
		}
	}
}

// arrivals are appends that wait until release is called.
type arrivals struct {
	t       *testing.T
	db      *Database
	waiting int
	unhold  func()
	blocked []<-chan outcome
}

type outcome struct {
	response *historyv1.AppendResponse
	err      error
}

// newBlockers makes a worker for each lane, of the last partitions.
func newBlockers(t *testing.T, db *Database) []*Worker {
	t.Helper()
	blockers := make([]*Worker, db.Lanes)
	for i := range blockers {
		partition := ids.Partition(Partitions - 1 - i)
		blockers[i] = NewWorker(db.Store, partition, ClockAt(int64(partition)<<32))
		blockers[i].Commit(t, blockers[i].CreateGroup("alice", "g"))
	}
	return blockers
}

// newArrivals gives each lane an append that cannot be committed until release is called.
func newArrivals(t *testing.T, db *Database, blockers []*Worker) *arrivals {
	t.Helper()
	c := &arrivals{t: t, db: db, unhold: db.Hold(t)}
	for i, blocker := range blockers {
		c.blocked = append(c.blocked, c.send(t.Context(), func(ctx context.Context) (*historyv1.AppendResponse, error) {
			_, err := blocker.Append(ctx, blocker.Batch())
			return nil, err
		}))
		c.until(func(stats store.Stats) bool { return stats.Committing == i+1 })
	}
	return c
}

func (c *arrivals) send(ctx context.Context, run func(ctx context.Context) (*historyv1.AppendResponse, error)) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		response, err := run(ctx)
		done <- outcome{response, err}
	}()
	return done
}

func (c *arrivals) until(reached func(store.Stats) bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool { return reached(c.db.Stats()) }, time.Minute, 20*time.Microsecond)
}

// add sends an append and returns when the append waits.
func (c *arrivals) add(ctx context.Context, batch *historyv1.AppendRequest) <-chan outcome {
	c.t.Helper()
	done := c.send(ctx, func(ctx context.Context) (*historyv1.AppendResponse, error) { return c.db.Append(ctx, batch) })
	c.waiting++
	c.until(func(stats store.Stats) bool { return stats.Waiting == c.waiting })
	return done
}

// release lets all appends commit.
func (c *arrivals) release() {
	c.t.Helper()
	c.unhold()
	for _, blocked := range c.blocked {
		require.NoError(c.t, (<-blocked).err)
	}
}
