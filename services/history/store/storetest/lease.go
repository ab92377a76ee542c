package storetest

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

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
}
