package store_test

import (
	"cmp"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

const ttl = 2000

// office is a table of leases and the workers in it, as in a database.
type office struct {
	t       require.TestingT
	now     int64
	leases  []store.Lease
	workers map[string]int64
}

func newOffice(t require.TestingT, partitions int) *office {
	o := &office{t: t, now: 1_790_000_000_000, leases: make([]store.Lease, partitions), workers: map[string]int64{}}
	for p := range o.leases {
		o.leases[p].Partition = ids.Partition(p)
	}
	return o
}

// call carries out one request and checks that its answer matches the table, that no worker lost a lease that had not
// expired, and that no worker claimed a partition that is moved to another.
func (o *office) call(request *historyv1.LeaseRequest) *historyv1.LeaseResponse {
	changed, response := store.Assign(o.now, o.leases, o.workers, request)
	worker := request.GetWorker()
	for _, lease := range changed {
		before := o.leases[lease.Partition]
		taken := lease.Worker == worker && before.Worker != worker
		require.False(o.t, taken && before.Worker != "" && before.UntilMs > o.now, "a lease that had not expired went to another worker")
		require.False(o.t, taken && lease.Wanted != "" && lease.Wanted != worker, "a partition went to a worker other than the one it is moved to")
		o.leases[lease.Partition] = lease
	}
	o.workers[worker] = o.now + ttl
	if request.GetStopping() {
		delete(o.workers, worker)
	}
	var held, pinned, handOver []uint32
	for _, lease := range o.leases {
		require.True(o.t, lease.Wanted == "" || o.live(lease.Wanted), "a requested move outlived its worker")
		if lease.Worker != worker {
			continue
		}
		require.Equal(o.t, o.now+ttl, lease.UntilMs, "owned leases are renewed")
		held = append(held, uint32(lease.Partition))
		if lease.Wanted == worker {
			pinned = append(pinned, uint32(lease.Partition))
		} else if lease.Wanted != "" {
			handOver = append(handOver, uint32(lease.Partition))
		}
	}
	require.Equal(o.t, held, response.GetHeld())
	require.Equal(o.t, pinned, response.GetPinned())
	require.Equal(o.t, handOver, response.GetHandOver())
	require.True(o.t, slices.IsSorted(response.GetHeld()))
	return response
}

func (o *office) live(worker string) bool { return o.workers[worker] > o.now }

// move does what a store does for an operator's request.
func (o *office) move(partition uint32, worker string) {
	if worker == "" || o.live(worker) {
		o.leases[partition].Wanted = worker
	}
}

// totals returns how many partitions each live worker owns.
func (o *office) totals() map[string]int {
	totals := map[string]int{}
	for worker := range o.workers {
		if o.live(worker) {
			totals[worker] = 0
		}
	}
	for _, lease := range o.leases {
		if lease.Worker != "" && lease.UntilMs > o.now {
			totals[lease.Worker]++
		}
	}
	return totals
}

// TestLeases lets workers come, go, fall silent and misbehave; the office checks every answer.
func TestLeases(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newOffice(t, rapid.IntRange(1, 20).Draw(t, "partitions"))
		names := []string{"a", "b", "c"}
		anyPartition := rapid.Uint32Range(0, uint32(len(o.leases)-1))
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			o.now += rapid.Int64Range(0, 900).Draw(t, "pass")
			if rapid.IntRange(0, 4).Draw(t, "move") == 0 {
				o.move(anyPartition.Draw(t, "partition"), rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "to"))
			}
			request := &historyv1.LeaseRequest{Worker: rapid.SampledFrom(names).Draw(t, "worker"), TtlMs: ttl, Stopping: rapid.Bool().Draw(t, "stopping")}
			for range rapid.IntRange(0, 3).Draw(t, "releases") {
				request.Release = append(request.Release, anyPartition.Draw(t, "release"))
			}
			response := o.call(request)
			for _, p := range response.GetHeld() {
				require.NotContains(t, request.GetRelease(), p, "a released partition is not claimed again in the same call")
			}
			if request.GetStopping() {
				require.Zero(t, response.GetShare())
			}
		}
	})
}

// worker behaves as delivery does: it releases the partitions that it must hand over and those above its share, unpinned
// ones first, and needs a few rounds until the work on a partition has ended.
type worker struct {
	name    string
	ending  map[uint32]int // partitions to release → rounds that it still takes
	stopped bool
}

func (w *worker) tick(t *rapid.T, o *office) {
	request := &historyv1.LeaseRequest{Worker: w.name, TtlMs: ttl, Stopping: w.stopped}
	for _, p := range slices.Sorted(maps.Keys(w.ending)) {
		if w.ending[p]--; w.ending[p] < 0 {
			request.Release = append(request.Release, p)
			delete(w.ending, p)
		}
	}
	response := o.call(request)
	end := func(p uint32) {
		if _, ending := w.ending[p]; !ending {
			w.ending[p] = rapid.IntRange(0, 2).Draw(t, "takes")
		}
	}
	for p := range w.ending {
		if !slices.Contains(response.GetHeld(), p) {
			delete(w.ending, p) // the lease had expired, and another worker has it
		}
	}
	for _, p := range response.GetHandOver() {
		end(p)
	}
	if w.stopped {
		for _, p := range response.GetHeld() {
			end(p)
		}
	}
	order := slices.Clone(response.GetHeld())
	slices.SortStableFunc(order, func(a, b uint32) int {
		rank := func(p uint32) int {
			if slices.Contains(response.GetPinned(), p) {
				return 0
			}
			return 1
		}
		return cmp.Compare(rank(a), rank(b))
	})
	kept := 0
	for _, p := range order {
		if _, ending := w.ending[p]; ending {
			continue
		}
		if kept++; kept > int(response.GetShare()) {
			end(p)
		}
	}
}

// TestLeasesSettle lets workers join, stop, vanish and be moved partitions by operators at random. After that, with nothing
// but their calls, all partitions must be owned, all requested moves fulfilled and the totals as equal as those allow, and
// no partition may move any more.
func TestLeasesSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := newOffice(t, rapid.IntRange(1, 24).Draw(t, "partitions"))
		var working []*worker
		hired := 0
		hire := func() {
			hired++
			working = append(working, &worker{name: string(rune('a' + hired)), ending: map[uint32]int{}})
		}
		hire()
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			n := rapid.IntRange(0, len(working)-1).Draw(t, "which")
			partition := rapid.IntRange(0, len(o.leases)-1)
			switch rapid.IntRange(0, 19).Draw(t, "step") {
			case 0, 1:
				if hired < 9 {
					hire()
				}
			case 2:
				working[n].stopped = true
			case 3:
				if len(working) > 1 {
					working = slices.Delete(working, n, n+1)
				}
			case 4, 5, 6:
				o.move(uint32(partition.Draw(t, "partition")), working[n].name)
			case 7: // an operator moves all partitions to one worker
				for p := range partition.Draw(t, "partitions") + 1 {
					o.move(uint32(p), working[n].name)
				}
			case 8:
				o.move(uint32(partition.Draw(t, "partition")), "")
			default:
				o.now += rapid.Int64Range(0, 1500).Draw(t, "pass")
				working[n].tick(t, o)
			}
		}
		// One worker must stay.
		working = slices.DeleteFunc(working, func(w *worker) bool { return w.stopped })
		if len(working) == 0 {
			hire()
		}
		round := func() {
			o.now += ttl / 4
			for _, n := range rapid.Permutation(working).Draw(t, "order") {
				n.tick(t, o)
			}
		}
		// The leases of dead workers expire; then each partition moves twice at most, in up to three rounds each time.
		for range 2*(ttl/(ttl/4)) + 8 {
			round()
		}
		settled := slices.Clone(o.leases)
		requireFair(t, o, len(working))
		for range 5 {
			round()
		}
		for p, lease := range o.leases {
			require.Equal(t, settled[p].Worker, lease.Worker, "partition %d still moves", p)
		}
	})
}

// requireFair compares the owners of the partitions with a simple computation of the result.
func requireFair(t *rapid.T, o *office, workers int) {
	wanted := map[string]int{}
	for _, lease := range o.leases {
		require.NotEmpty(t, lease.Worker, "partition %d has no owner", lease.Partition)
		require.Greater(t, lease.UntilMs, o.now, "partition %d has no owner", lease.Partition)
		if lease.Wanted != "" {
			require.Equal(t, lease.Wanted, lease.Worker, "partition %d is not on the worker it is moved to", lease.Partition)
			wanted[lease.Wanted]++
		}
	}
	totals := o.totals()
	require.Len(t, totals, workers)
	for one, total := range totals {
		for other, least := range totals {
			// A difference of two or more is right only if all partitions of the larger worker are moved to it.
			require.True(t, total <= least+1 || total == wanted[one], "%s has %d, %s only %d: %v", one, total, other, least, totals)
		}
	}
}

func TestWishes(t *testing.T) {
	o := newOffice(t, 4)
	tick := func(worker string, release ...uint32) *historyv1.LeaseResponse {
		o.now++
		return o.call(&historyv1.LeaseRequest{Worker: worker, TtlMs: ttl, Release: release})
	}
	require.Len(t, tick("a").GetHeld(), 4)
	tick("b")
	tick("a", 2, 3)
	require.Equal(t, []uint32{2, 3}, tick("b").GetHeld())

	// Both partitions of a are moved to b: it must get all four, and a keeps only work that has not ended.
	o.move(0, "b")
	o.move(1, "b")
	answer := tick("a")
	require.Equal(t, []uint32{0, 1}, answer.GetHandOver())
	require.Equal(t, uint32(2), answer.GetShare(), "two others must still come")
	require.Empty(t, tick("a", 0, 1).GetHeld(), "it does not claim what it handed over")
	answer = tick("b")
	require.Equal(t, []uint32{0, 1, 2, 3}, answer.GetHeld(), "at once, above its share")
	require.Equal(t, []uint32{0, 1}, answer.GetPinned())
	require.Equal(t, uint32(2), answer.GetShare())
	tick("b", 2, 3)
	require.Equal(t, []uint32{2, 3}, tick("a").GetHeld())

	// A withdrawn request leaves the partition where it is.
	o.move(0, "")
	require.Equal(t, []uint32{1}, tick("b").GetPinned())

	// The request ends with its worker, whether that stops or falls silent.
	o.call(&historyv1.LeaseRequest{Worker: "b", TtlMs: ttl, Stopping: true, Release: []uint32{0, 1}})
	require.Equal(t, []uint32{0, 1, 2, 3}, tick("a").GetHeld())
	tick("c")
	o.move(0, "c")
	require.Equal(t, []uint32{0}, tick("a").GetHandOver())
	o.now += ttl
	require.Empty(t, tick("a").GetHandOver())
	require.Empty(t, tick("c").GetPinned(), "after its return, the partition is no longer moved to it")
}

func TestNothingMovesWithoutNeed(t *testing.T) {
	o := newOffice(t, 5)
	tick := func(worker string, release ...uint32) *historyv1.LeaseResponse {
		o.now++
		return o.call(&historyv1.LeaseRequest{Worker: worker, TtlMs: ttl, Release: release})
	}
	require.Len(t, tick("b").GetHeld(), 5)
	tick("a")
	require.Equal(t, uint32(3), tick("b").GetShare(), "the remainder stays with the worker that owns more, whatever its name")
	tick("b", 4)
	require.Equal(t, []uint32{4}, tick("a").GetHeld())
	require.Equal(t, uint32(3), tick("b").GetShare())
	tick("b", 3)
	require.Equal(t, []uint32{3, 4}, tick("a").GetHeld())
	require.Equal(t, []uint32{0, 1, 2}, tick("b").GetHeld())
	tick("c")
	require.Equal(t, uint32(2), tick("a").GetShare())
	require.Equal(t, uint32(2), tick("b").GetShare(), "a newcomer gets one of the larger share only")
	tick("b", 2)
	require.Equal(t, []uint32{2}, tick("c").GetHeld())
}
