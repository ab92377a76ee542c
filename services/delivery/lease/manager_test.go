package lease

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/deliverytest"
)

// site records which worker works on which partition, in the time of the synctest bubble.
type site struct {
	store *deliverytest.Leases
	log   slog.Handler
	takes time.Duration // for work to end

	mu       sync.Mutex
	managers []*Manager
	working  map[ids.Partition]string    // the current worker, by partition
	since    map[ids.Partition]time.Time // when the current worker began
	twice    bool                        // two workers at once on one partition
}

func newSite(partitions int) *site {
	return &site{store: deliverytest.NewLeases(partitions), log: slog.DiscardHandler, takes: 20 * time.Millisecond, working: map[ids.Partition]string{}, since: map[ids.Partition]time.Time{}}
}

// job is an assignment that needs some time to end.
type job struct {
	site     *site
	part     ids.Partition
	worker   string
	takes    time.Duration
	stopping sync.Once
	done     chan struct{}
	ended    func()
	confirms int
}

func (j *job) Stop() {
	j.stopping.Do(func() {
		time.AfterFunc(j.takes, func() {
			j.site.mu.Lock()
			if j.site.working[j.part] == j.worker {
				delete(j.site.working, j.part)
			}
			j.site.mu.Unlock()
			close(j.done)
			j.ended()
		})
	})
}
func (j *job) Done() <-chan struct{} { return j.done }
func (j *job) Confirm()              { j.confirms++ }

// hire starts a worker. kill ends it without releasing its leases, stop ends it cleanly.
func (s *site) hire(t *testing.T, name string, fit func() bool) (stop, kill func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	dead := make(chan struct{})
	var k *Manager
	begin := func(p ids.Partition, ended func()) Assignment {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.working[p] != "" {
			s.twice = true
		}
		s.working[p], s.since[p] = name, time.Now()
		return &job{site: s, part: p, worker: name, takes: s.takes, done: make(chan struct{}), ended: ended}
	}
	announce := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, other := range s.managers {
			other.RenewNow()
		}
	}
	k = New(Config{
		Store: mortal{s.store, dead}, Worker: name, Partitions: s.store.Partitions, TTL: 2 * time.Second, Log: slog.New(s.log),
		Failures: prometheus.NewCounter(prometheus.CounterOpts{}), Moves: prometheus.NewCounter(prometheus.CounterOpts{}),
		Start: begin, Announce: announce, Fit: fit,
	})
	s.mu.Lock()
	s.managers = append(s.managers, k)
	s.mu.Unlock()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		k.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-finished })
	return func() { cancel(); <-finished }, func() {
		close(dead)
		s.mu.Lock()
		defer s.mu.Unlock()
		for p, w := range s.working {
			if w == name {
				delete(s.working, p)
			}
		}
	}
}

func always() bool { return true }

// spread returns how many partitions each worker works on.
func (s *site) spread() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for _, w := range s.working {
		n[w]++
	}
	return n
}

func TestLeasesSpreadEvenlyAndHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(16)
		stopA, _ := s.hire(t, "a", always)
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 16}, s.spread())

		s.hire(t, "b", always)
		pass(1300 * time.Millisecond) // renewals and the handover; the next renewal is due later
		require.Equal(t, map[string]int{"a": 8, "b": 8}, s.spread())

		before := time.Now()
		stopA()
		synctest.Wait()
		require.Equal(t, map[string]int{"b": 16}, s.spread())
		require.LessOrEqual(t, time.Since(before), 300*time.Millisecond, "after a clean stop another worker takes over at once")
		require.False(t, s.twice)
	})
}

func TestSilentDeathIsTakenOverWithinThreeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(16)
		_, killA := s.hire(t, "a", always)
		s.hire(t, "b", always)
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"a": 8, "b": 8}, s.spread())

		killed := time.Now()
		killA()
		pass(4 * time.Second)
		require.Equal(t, map[string]int{"b": 16}, s.spread())
		for p, at := range s.since {
			require.LessOrEqual(t, at.Sub(killed), 3*time.Second, "partition %d", p)
		}
	})
}

func TestWorkerThatCannotRenewStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(4)
		s.hire(t, "a", always)
		synctest.Wait()
		s.store.SetDown(true)
		pass(2 * time.Second)
		require.Equal(t, map[string]int{"a": 4}, s.spread(), "work continues while the lease is valid, although it cannot be renewed")
		pass(1500 * time.Millisecond)
		require.Empty(t, s.spread())

		s.store.SetDown(false)
		pass(time.Second)
		require.Equal(t, map[string]int{"a": 4}, s.spread())
		require.False(t, s.twice)
	})
}

// One outage is one error, however often the renewal fails and however long the work takes to end.
func TestTheReleaseOfAllPartitionsIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := newSite(16)
		s.log, s.takes = slog.NewTextHandler(&log, nil), time.Minute
		s.hire(t, "a", always)
		synctest.Wait()
		for range 2 {
			s.store.SetDown(true)
			pass(7 * time.Second)
			s.store.SetDown(false)
			pass(time.Second)
		}
		require.Equal(t, 2, strings.Count(log.String(), "level=ERROR"), log.String())
		require.Equal(t, 2, strings.Count(log.String(), "level=WARN"), log.String())
	})
}

func TestLostLeaseIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(2)
		s.hire(t, "a", always)
		synctest.Wait()
		s.store.Assign(1, "somebody else")
		pass(time.Second)
		require.Equal(t, map[string]int{"a": 1}, s.spread())
	})
}

// A worker that reaches the store but not the broker must release its partitions to other workers.
func TestUnfitWorkerGivesItsPartitionsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(4)
		var mu sync.Mutex
		connected := true
		s.hire(t, "a", func() bool { mu.Lock(); defer mu.Unlock(); return connected })
		s.hire(t, "b", always)
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"a": 2, "b": 2}, s.spread())
		mu.Lock()
		connected = false
		mu.Unlock()
		pass(4 * time.Second)
		require.Equal(t, map[string]int{"b": 4}, s.spread())
		mu.Lock()
		connected = true
		mu.Unlock()
		pass(2 * time.Second)
		require.Equal(t, map[string]int{"a": 2, "b": 2}, s.spread())
		require.False(t, s.twice)
	})
}

// move does what an operator's MovePartition does: it stores the request and wakes all workers.
func (s *site) move(partition uint32, worker string) {
	s.store.MoveTo(ids.Partition(partition), worker)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.managers {
		k.RenewNow()
	}
}

// worksOn returns the worker of a partition.
func (s *site) worksOn(p int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.working[ids.Partition(p)]
}

func TestMovedPartitionIsHandedOverAtOnceAndStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(16)
		s.hire(t, "a", always)
		s.hire(t, "b", always)
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"a": 8, "b": 8}, s.spread())
		var moved uint32
		for s.worksOn(int(moved)) != "a" {
			moved++
		}

		before := time.Now()
		s.move(moved, "b")
		for s.worksOn(int(moved)) != "b" {
			pass(time.Millisecond)
			require.Less(t, time.Since(before), 300*time.Millisecond)
		}
		require.InDelta(t, 1, testutil.ToFloat64(s.managers[0].Moves), 0)
		require.Zero(t, testutil.ToFloat64(s.managers[1].Moves))
		pass(5 * time.Second)
		require.Equal(t, "b", s.worksOn(int(moved)), "the moved partition stays")
		require.Equal(t, map[string]int{"a": 8, "b": 8}, s.spread(), "another partition was released for it")
		require.False(t, s.twice)
	})
}

// Partitions that are moved to a worker stay there while it lives, even above its share; then other workers take them.
func TestMovedPartitionsMayBeAboveTheShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(4)
		s.hire(t, "a", always)
		stopB, _ := s.hire(t, "b", always)
		pass(3 * time.Second)
		for p := range uint32(3) {
			s.move(p, "b")
		}
		pass(5 * time.Second)
		require.Equal(t, map[string]int{"a": 1, "b": 3}, s.spread())
		for p := range 3 {
			require.Equal(t, "b", s.worksOn(p))
		}
		s.move(0, "") // any worker may own it again
		pass(5 * time.Second)
		require.Equal(t, map[string]int{"a": 2, "b": 2}, s.spread())
		stopB()
		synctest.Wait()
		require.Equal(t, map[string]int{"a": 4}, s.spread())
		require.False(t, s.twice)
	})
}

// If a partition is moved to a worker that dies meanwhile, another worker takes it as soon as after the death of an owner.
func TestAMoveToAWorkerThatDies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(4)
		s.hire(t, "a", always)
		_, killB := s.hire(t, "b", always)
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"a": 2, "b": 2}, s.spread())
		var moved uint32
		for s.worksOn(int(moved)) != "a" {
			moved++
		}
		killed := time.Now()
		killB()
		s.move(moved, "b")
		pass(500 * time.Millisecond)
		require.Empty(t, s.worksOn(int(moved)), "a released it, and b is not known to be dead yet")
		pass(3 * time.Second)
		require.Equal(t, map[string]int{"a": 4}, s.spread())
		for p, since := range s.since {
			require.LessOrEqual(t, since.Sub(killed), 3*time.Second, "partition %d", p)
		}
		require.False(t, s.twice)
	})
}

// Two partitions that are moved to each other's worker at the same time are exchanged, and stay there.
func TestMovesThatCross(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(4)
		s.hire(t, "a", always)
		s.hire(t, "b", always)
		pass(3 * time.Second)
		before := map[ids.Partition]string{}
		other := map[string]string{"a": "b", "b": "a"}
		for p := range ids.Partition(4) {
			before[p] = s.worksOn(int(p))
		}
		moved := map[string]int{}
		for p, worker := range before {
			moved[worker] = int(p)
		}
		begun := time.Now()
		for worker, p := range moved {
			s.move(uint32(p), other[worker])
		}
		pass(5 * time.Second)
		require.Equal(t, map[string]int{"a": 2, "b": 2}, s.spread())
		for worker, p := range moved {
			require.Equal(t, other[worker], s.worksOn(p))
		}
		for p, since := range s.since {
			require.Less(t, since.Sub(begun), time.Second, "partition %d", p)
		}
		require.False(t, s.twice)
	})
}

func TestFailedRenewalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(1)
		s.hire(t, "a", always)
		synctest.Wait()
		require.Zero(t, testutil.ToFloat64(s.managers[0].Failures))
		s.store.SetDown(true)
		pass(1100 * time.Millisecond)
		require.InDelta(t, 2, testutil.ToFloat64(s.managers[0].Failures), 0)
	})
}

// pass lets time pass in a synctest bubble, and then lets everything end that is due at that time.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// mortal is the store as seen by a worker that may be killed: calls of a dead worker never reach the store.
type mortal struct {
	Store
	dead chan struct{}
}

func (m mortal) Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	select {
	case <-m.dead:
		return nil, status.Error(codes.Unavailable, "dead")
	default:
		return m.Store.Lease(ctx, in, opts...)
	}
}
