package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/history/store"
)

// long outlasts every test.
const long = 600_000

func lease(t *testing.T, s store.Store, request *historyv1.LeaseRequest) *historyv1.LeaseResponse {
	t.Helper()
	response, err := s.Lease(t.Context(), request)
	require.NoError(t, err)
	return response
}

func testLease(t *testing.T, subject Subject) {
	t.Helper()
	t.Run("one takes all, two share, a stopping one hands over at once", func(t *testing.T) {
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

		// It lists what it has finished; what it has not stays its own.
		stopping := lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Stopping: true, Release: first.GetHeld()[:4]})
		require.Equal(t, first.GetHeld()[4:], stopping.GetHeld())
		require.Zero(t, stopping.GetShare())
		second = lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long})
		require.Len(t, second.GetHeld(), Partitions/2+4)
		require.Equal(t, uint32(Partitions), second.GetShare())
		lease(t, db, &historyv1.LeaseRequest{Worker: "a", TtlMs: long, Stopping: true, Release: stopping.GetHeld()})
		require.Len(t, lease(t, db, &historyv1.LeaseRequest{Worker: "b", TtlMs: long}).GetHeld(), Partitions)
	})

	t.Run("leases of a silent worker run out", func(t *testing.T) {
		db := subject.New(t)
		require.Len(t, lease(t, db, &historyv1.LeaseRequest{Worker: "silent", TtlMs: 1}).GetHeld(), Partitions)
		require.Eventually(t, func() bool {
			response, err := db.Lease(t.Context(), &historyv1.LeaseRequest{Worker: "next", TtlMs: long})
			return err == nil && len(response.GetHeld()) == Partitions && response.GetShare() == Partitions
		}, time.Minute, time.Millisecond)
		// Its leases were taken: coming back, it is one of two.
		back := lease(t, db, &historyv1.LeaseRequest{Worker: "silent", TtlMs: long})
		require.Empty(t, back.GetHeld())
		require.Equal(t, uint32(Partitions/2), back.GetShare())
	})

	t.Run("no partition is held twice, whatever happens at once", func(t *testing.T) {
		db := subject.New(t)
		var running sync.WaitGroup
		held := make([][]uint32, 5)
		for w := range held {
			running.Go(func() {
				request := &historyv1.LeaseRequest{Worker: string(rune('a' + w)), TtlMs: long}
				for range 10 {
					response := lease(t, db, request)
					held[w] = response.GetHeld()
					request.Release = nil
					if surplus := len(held[w]) - int(response.GetShare()); surplus > 0 {
						request.Release = held[w][:surplus]
					}
				}
			})
		}
		running.Wait()
		for w := range held { // all are known by now: one round gives back what is above the share, the next takes it
			response := lease(t, db, &historyv1.LeaseRequest{Worker: string(rune('a' + w)), TtlMs: long})
			surplus := max(0, len(response.GetHeld())-int(response.GetShare()))
			held[w] = lease(t, db, &historyv1.LeaseRequest{Worker: string(rune('a' + w)), TtlMs: long, Release: response.GetHeld()[:surplus]}).GetHeld()
		}
		for w := range held {
			held[w] = lease(t, db, &historyv1.LeaseRequest{Worker: string(rune('a' + w)), TtlMs: long}).GetHeld()
			require.LessOrEqual(t, len(held[w]), 4)
		}
		all := slices.Concat(held...)
		slices.Sort(all)
		require.Len(t, all, Partitions)
		require.Len(t, slices.Compact(all), Partitions)
	})

	t.Run("a wish moves a partition, and ends with its worker", func(t *testing.T) {
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
		require.ErrorIs(t, db.Move(t.Context(), 0, "b"), store.ErrNoWorker, "one that stops is not live")
		require.NoError(t, db.Move(t.Context(), 0, ""), "a wish can be taken back whoever is live")
	})

	t.Run("a wish for a silent worker is forgotten", func(t *testing.T) {
		db := subject.New(t)
		lease(t, db, &historyv1.LeaseRequest{Worker: "stays", TtlMs: long})
		require.Eventually(t, func() bool { // that short, it may be over before the wish is stored
			lease(t, db, &historyv1.LeaseRequest{Worker: "silent", TtlMs: 50})
			return db.Move(t.Context(), 3, "silent") == nil
		}, time.Minute, time.Millisecond)
		require.Eventually(t, func() bool {
			lease(t, db, &historyv1.LeaseRequest{Worker: "stays", TtlMs: long})
			return leases(t, db).GetLeases()[3].GetWanted() == ""
		}, time.Minute, time.Millisecond)
		require.ErrorIs(t, db.Move(t.Context(), 3, "silent"), store.ErrNoWorker)
	})

	t.Run("leases are listed with who is live and where each partition stands", func(t *testing.T) {
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
			all = leases(t, db)
			return len(all.GetWorkers()) == 1 && all.GetLeases()[0].GetLiveForMs() <= 0
		}, time.Minute, time.Millisecond)
		require.Equal(t, "z", all.GetLeases()[0].GetWorker(), "it says who held it last")
	})
}

func leases(t *testing.T, s store.Store) *historyv1.ListLeasesResponse {
	t.Helper()
	response, err := s.Leases(t.Context())
	require.NoError(t, err)
	return response
}
