package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/wake"
)

// renewals is how many times a lease is renewed in the time it lasts.
const renewals = 4

// leaser is what a keeper needs of the store.
type leaser interface {
	Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error)
}

// tenure is the work on one partition while it is this worker's.
type tenure interface {
	// Stop asks it to end; it does not wait.
	Stop()
	// Done is closed when it has ended.
	Done() <-chan struct{}
	// Confirm tells it that the lease was renewed.
	Confirm()
}

// keeper keeps the leases of one worker: it begins the work on partitions that the store gives to it, ends the work on
// those that it takes away, hands back what is above its share, and what an operator wants on another worker. What an
// operator moved here is kept before anything else, and even above the share.
//
// Two workers may work on a partition for a moment: the lease only keeps that rare. What keeps it harmless is the
// watermark, which only one of them can move.
type keeper struct {
	store      leaser
	worker     string
	partitions int
	ttl        time.Duration
	log        *slog.Logger
	metrics    *metrics
	begin      func(partition int, ended func()) tenure
	announce   func()      // tells other workers that partitions are free
	fit        func() bool // whether this worker can work at all; one that cannot gives its partitions to others

	// wake makes the keeper look at once: others gave partitions back, or a tenure of ours ended.
	wake wake.Signal

	tenures map[int]tenure
	surplus map[int]struct{} // to be given back as soon as their tenures have ended
	fitAt   time.Time        // when the worker was last fit
	failing bool
	// renewed is when the last successful renewal was begun (the store counts from later); zero before Run. Atomic
	// because readiness asks for it.
	renewed atomic.Pointer[time.Time]
}

func (k *keeper) lastRenewal() time.Time {
	if at := k.renewed.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

func newKeeper(store leaser, worker string, partitions int, ttl time.Duration, log *slog.Logger, metrics *metrics, begin func(int, func()) tenure, announce func(), fit func() bool) *keeper {
	return &keeper{
		store: store, worker: worker, partitions: partitions, ttl: ttl, log: log, metrics: metrics, begin: begin, announce: announce, fit: fit,
		wake: wake.NewSignal(), tenures: map[int]tenure{}, surplus: map[int]struct{}{},
	}
}

// run keeps the leases until ctx ends; then it ends all work and gives everything back, so that others need not wait for
// the leases to run out.
func (k *keeper) run(ctx context.Context) {
	k.fitAt = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			k.leave(context.WithoutCancel(ctx))
			return
		case <-timer.C:
		case <-k.wake:
		}
		k.renew(ctx)
		timer.Reset(k.ttl / renewals)
	}
}

// renew makes one round: give back, renew, claim.
func (k *keeper) renew(ctx context.Context) {
	now := time.Now()
	if k.fit() {
		k.fitAt = now
	}
	unfit := now.Sub(k.fitAt) > k.ttl
	if unfit {
		k.stopAll("the connection to NATS is lost")
		for p := range k.tenures {
			k.surplus[p] = struct{}{}
		}
	}
	release := k.reap()
	call, cancel := context.WithTimeout(ctx, k.ttl/2)
	defer cancel()
	answer, err := k.store.Lease(call, &historyv1.LeaseRequest{
		Worker: k.worker, TtlMs: uint32(k.ttl.Milliseconds()), Release: release, Stopping: unfit,
	})
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		k.metrics.leaseFailures.Inc()
		if !k.failing {
			k.failing = true
			k.log.Warn("could not renew the leases; trying again", "error", err)
		}
		if time.Since(k.lastRenewal()) > k.ttl {
			k.stopAll("the leases have run out")
		}
		return
	}
	if k.failing {
		k.failing = false
		k.log.Info("the leases are renewed again")
	}
	k.renewed.Store(&now)
	for _, p := range release {
		delete(k.surplus, int(p))
	}
	if len(release) > 0 {
		k.announce()
	}
	if !unfit {
		k.settle(answer)
		return
	}
	// A claim whose answer was lost: nobody works on it here, and renewing keeps others from it.
	for _, p := range answer.GetHeld() {
		if _, begun := k.tenures[int(p)]; !begun {
			k.surplus[int(p)] = struct{}{}
			k.wake.Raise()
		}
	}
}

// reap forgets tenures that have ended and names the partitions to give back.
func (k *keeper) reap() []uint32 {
	for p, t := range k.tenures {
		select {
		case <-t.Done():
			delete(k.tenures, p)
		default:
		}
	}
	var release []uint32
	for _, p := range slices.Sorted(maps.Keys(k.surplus)) {
		if _, ending := k.tenures[p]; !ending {
			release = append(release, uint32(p))
		}
	}
	return release
}

// settle brings the work in line with what the store says is this worker's.
func (k *keeper) settle(answer *historyv1.LeaseResponse) {
	held := make(map[int]struct{}, len(answer.GetHeld()))
	for _, p := range answer.GetHeld() {
		held[int(p)] = struct{}{}
	}
	for p, t := range k.tenures {
		if _, ours := held[p]; !ours {
			if _, expected := k.surplus[p]; !expected {
				k.log.Warn("lost the lease of a partition", "partition", p)
			}
			delete(k.surplus, p)
			t.Stop()
		}
	}
	wantedElsewhere, pinned := answer.GetHandOver(), answer.GetPinned()
	// What is pinned counts first, so that the others are what is above the share.
	order := slices.SortedFunc(maps.Keys(held), func(a, b int) int {
		return cmp.Or(rank(pinned, a)-rank(pinned, b), a-b)
	})
	var taken []int
	working, again := 0, false
	for _, p := range order {
		if _, leaving := k.surplus[p]; leaving {
			continue
		}
		t, begun := k.tenures[p]
		handOver := slices.Contains(wantedElsewhere, uint32(p))
		switch {
		case handOver || (working >= int(answer.GetShare()) && !slices.Contains(pinned, uint32(p))):
			if handOver {
				k.metrics.moves.Inc()
				k.log.Info("handing a partition over, as an operator wants", "partition", p)
			}
			k.surplus[p] = struct{}{}
			if begun {
				t.Stop()
			} else {
				again = true
			}
			continue
		case begun:
			t.Confirm()
		default:
			k.tenures[p] = k.begin(p, func() { k.wake.Raise() })
			taken = append(taken, p)
		}
		working++
	}
	if len(taken) > 0 {
		k.log.Info("taking over partitions", "partitions", taken, "working_on", working)
	}
	if again {
		k.wake.Raise() // to give back what was never begun
	}
}

func rank(pinned []uint32, partition int) int {
	if slices.Contains(pinned, uint32(partition)) {
		return 0
	}
	return 1
}

func (k *keeper) stopAll(reason string) {
	if len(k.tenures) > 0 {
		k.log.Error("giving up all partitions", "reason", reason, "partitions", len(k.tenures))
	}
	for _, t := range k.tenures {
		t.Stop()
	}
}

// leave ends all work and gives everything back.
func (k *keeper) leave(ctx context.Context) {
	for _, t := range k.tenures {
		t.Stop()
	}
	for _, t := range k.tenures {
		<-t.Done()
	}
	// All that there are, because a last call that was cut off may have claimed some; of others' none is given back.
	release := make([]uint32, k.partitions)
	for p := range release {
		release[p] = uint32(p)
	}
	ctx, cancel := context.WithTimeout(ctx, k.ttl/2)
	defer cancel()
	_, err := k.store.Lease(ctx, &historyv1.LeaseRequest{
		Worker: k.worker, TtlMs: uint32(k.ttl.Milliseconds()), Release: release, Stopping: true,
	})
	if err != nil {
		k.log.Warn("could not give the leases back; they run out by themselves", "after", k.ttl, "error", err)
		return
	}
	k.announce()
}
