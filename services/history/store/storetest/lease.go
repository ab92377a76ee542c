package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// long is longer than every test.
const long = 600_000

func lease(t *testing.T, s store.Store, request *historyv1.LeaseRequest) *historyv1.LeaseResponse {
	t.Helper()
	response, err := s.Lease(t.Context(), request)
	require.NoError(t, err)
	return response
}

func testLease(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("one worker claims all, two share, a stopping one hands over at once", func(t *testing.T) {
		db := subject.New(t)
		first := lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long})
		require.Len(t, first.GetHeld(), Partitions)
		require.Equal(t, uint32(Partitions), first.GetShare())

		second := lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.Empty(t, second.GetHeld())
		require.Equal(t, uint32(Partitions/2), second.GetShare())

		surplus := first.GetHeld()[Partitions/2:]
		first = lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Release: surplus})
		require.Len(t, first.GetHeld(), Partitions/2)
		second = lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.Equal(t, surplus, second.GetHeld())

		// The worker lists the partitions on which its work has ended; it keeps the other partitions.
		stopping := lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Stopping: true, Release: first.GetHeld()[:4]})
		require.Equal(t, first.GetHeld()[4:], stopping.GetHeld())
		require.Zero(t, stopping.GetShare())
		second = lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.Len(t, second.GetHeld(), Partitions/2+4)
		require.Equal(t, uint32(Partitions), second.GetShare())
		lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Stopping: true, Release: stopping.GetHeld()})
		require.Len(t, lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long}).GetHeld(), Partitions)
	})

	t.Run("leases of a silent worker expire", func(t *testing.T) {
		db := subject.New(t)
		require.Len(t, lease(t, db, &historyv1.LeaseRequest{Worker: "silent", TtlMs: 1}).GetHeld(), Partitions)
		require.Eventually(t, func() bool {
			response, err := db.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "next", TtlMs: long})
			return err == nil && len(response.GetHeld()) == Partitions && response.GetShare() == Partitions
		}, time.Minute, time.Millisecond)
		// Its leases were claimed by the other worker. After its return there are two workers.
		back := lease(t, db, &historyv1.LeaseRequest{Worker: "silent", TtlMs: long})
		require.Empty(t, back.GetHeld())
		require.Equal(t, uint32(Partitions/2), back.GetShare())
	})

	t.Run("no partition is held twice, whatever happens at once", func(t *testing.T) {
		db := subject.New(t)
		crowd(t, db)
	})

	t.Run("a request moves a partition, and ends with its worker", func(t *testing.T) {
		db := subject.New(t)
		lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long})
		lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.ErrorIs(t, db.Move(t.Context(), 5, "nobody"), store.ErrNoWorker)
		require.NoError(t, db.Move(t.Context(), 5, "b"))
		require.Equal(t, "b", leases(t, db).GetLeases()[5].GetWanted())
		require.Equal(t, []uint32{5}, lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long}).GetHandOver())
		lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Release: []uint32{5, 6}})
		moved := lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.Equal(t, []uint32{5, 6}, moved.GetHeld())
		require.Equal(t, []uint32{5}, moved.GetPinned())

		require.NoError(t, db.Move(t.Context(), 5, ""))
		require.Empty(t, lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long}).GetPinned())
		require.NoError(t, db.Move(t.Context(), 0, "b"))
		lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long, Stopping: true, Release: []uint32{5, 6}})
		require.Empty(t, leases(t, db).GetLeases()[0].GetWanted())
		require.ErrorIs(t, db.Move(t.Context(), 0, "b"), store.ErrNoWorker, "a stopping worker is not live")
		require.NoError(t, db.Move(t.Context(), 0, ""), "a request can be withdrawn whichever worker is live")
	})

	t.Run("a request for a silent worker is deleted", func(t *testing.T) {
		db := subject.New(t)
		lease(t, db, &historyv1.LeaseRequest{Worker: "stays", TtlMs: long})
		require.Eventually(t, func() bool { // this lease is so short that it may expire before the request is stored
			_, err := db.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "silent", TtlMs: 50})
			return err == nil && db.Move(t.Context(), 3, "silent") == nil
		}, time.Minute, time.Millisecond)
		require.Eventually(t, func() bool {
			_, err := db.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "stays", TtlMs: long})
			all, errList := db.Leases(t.Context())
			return err == nil && errList == nil && all.GetLeases()[3].GetWanted() == ""
		}, time.Minute, time.Millisecond)
		require.ErrorIs(t, db.Move(t.Context(), 3, "silent"), store.ErrNoWorker)
	})

	t.Run("leases are listed with the live workers and each partition's watermark", func(t *testing.T) {
		db := subject.New(t)
		none := leases(t, db)
		require.Empty(t, none.GetWorkers())
		require.Len(t, none.GetLeases(), Partitions)
		for p, free := range none.GetLeases() {
			require.True(t, proto.Equal(&historyv1.PartitionLease{Partition: uint32(p), Watermark: &historyv1.Watermark{}}, free), "%v", free)
		}
		worker := NewWorker(db, 7, &Clock{})
		worker.Commit(t, worker.CreateGroup("alice", "g"))
		lease(t, db, &historyv1.LeaseRequest{Worker: "z", TtlMs: long})
		lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long})
		lease(t, db, &historyv1.LeaseRequest{Worker: "z", TtlMs: long, Release: []uint32{9}})
		require.NoError(t, db.Move(t.Context(), 9, "z"))
		all := leases(t, db)
		require.Len(t, all.GetWorkers(), 2)
		require.Equal(t, "a", all.GetWorkers()[0].GetWorker())
		require.Equal(t, "z", all.GetWorkers()[1].GetWorker())
		for _, live := range all.GetWorkers() {
			require.Positive(t, live.GetLiveForMs())
			require.LessOrEqual(t, live.GetLiveForMs(), int64(long))
		}
		require.True(t, proto.Equal(worker.Watermark, all.GetLeases()[7].GetWatermark()))
		require.Equal(t, "z", all.GetLeases()[7].GetWorker())
		require.Positive(t, all.GetLeases()[7].GetLiveForMs())
		require.Empty(t, all.GetLeases()[9].GetWorker())
		require.Zero(t, all.GetLeases()[9].GetLiveForMs())
		require.Equal(t, "z", all.GetLeases()[9].GetWanted())

		lease(t, db, &historyv1.LeaseRequest{Worker: "z", TtlMs: 1})
		require.Eventually(t, func() bool {
			var err error
			all, err = db.Leases(t.Context())
			return err == nil && len(all.GetWorkers()) == 1 && all.GetLeases()[0].GetLiveForMs() <= 0
		}, time.Minute, time.Millisecond)
		require.Equal(t, "z", all.GetLeases()[0].GetWorker(), "the lease names its last owner")
	})
}

func leases(t *testing.T, s store.Store) *historyv1.ListLeasesResponse {
	t.Helper()
	response, err := s.Leases(t.Context())
	require.NoError(t, err)
	return response
}

// crowd lets workers claim, release and be moved to partitions concurrently, using the stores in turn, until every
// partition has an owner and every request is fulfilled.
func crowd(t *testing.T, stores ...store.Store) {
	t.Helper()
	names := []string{"a", "b", "c", "d", "e"}
	tick := func(w int, held *historyv1.LeaseResponse) *historyv1.LeaseResponse {
		request := &historyv1.LeaseRequest{Worker: names[w], TtlMs: long, Release: slices.Clone(held.GetHandOver())}
		loose := slices.DeleteFunc(slices.Clone(held.GetHeld()), func(p uint32) bool {
			return slices.Contains(held.GetHandOver(), p) || slices.Contains(held.GetPinned(), p)
		})
		if surplus := len(loose) + len(held.GetPinned()) - int(held.GetShare()); surplus > 0 {
			request.Release = append(request.Release, loose[:min(surplus, len(loose))]...)
		}
		return lease(t, stores[w%len(stores)], request)
	}
	held := make([]*historyv1.LeaseResponse, len(names))
	for w := range names { // all workers are live before the first request
		held[w] = tick(w, nil)
	}
	var running sync.WaitGroup
	for w := range names {
		running.Go(func() {
			for round := range 10 {
				held[w] = tick(w, held[w])
				if round%3 == w%3 {
					require.NoError(t, stores[(w+1)%len(stores)].Move(t.Context(), ids.Partition(w*3+round%3), names[(w+round)%len(names)]))
				}
			}
		})
	}
	running.Wait()
	for range 10 {
		for w := range names {
			held[w] = tick(w, held[w])
		}
	}
	var all []uint32
	for w := range names {
		all = append(all, held[w].GetHeld()...)
	}
	slices.Sort(all)
	require.Len(t, all, Partitions)
	require.Len(t, slices.Compact(all), Partitions, "a partition has two owners")
	for _, lease := range leases(t, stores[0]).GetLeases() {
		require.True(t, lease.GetWanted() == "" || lease.GetWanted() == lease.GetWorker(), "%v", lease)
	}
}
