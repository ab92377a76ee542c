package delivery

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/wake"
)

// renewals is how many times a lease is renewed in the time it lasts.
const renewals = 4

// leaser is the part of the store that a keeper needs.
type leaser interface {
	Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error)
}

// tenure is the work on one partition while this worker holds its lease.
type tenure interface {
	// Stop asks it to end; it does not wait.
	Stop()
	// Done is closed when it has ended.
	Done() <-chan struct{}
	// Confirm tells it that the lease was renewed.
	Confirm()
}

// leaseConfig is what a keeper works with. All fields are required.
type leaseConfig struct {
	Store      leaser
	Worker     string // its name
	Partitions int
	TTL        time.Duration
	Log        *slog.Logger
	// Failures counts failed renewals, Moves the partitions that were given up because an operator moved them.
	Failures, Moves prometheus.Counter

	// Start begins the work on a partition, and calls ended after it has ended.
	Start func(partition int, ended func()) tenure
	// Announce tells other workers that partitions are free.
	Announce func()
	// Fit reports whether this worker can work at all. One that cannot gives its partitions to others.
	Fit func() bool
}

// keeper renews the leases of one worker. It starts the work on partitions that the store assigns to it, ends the work on
// those that the store takes away, and gives back those above its share and those that an operator moved to another worker.
// A partition that an operator moved here stays, even above the share.
//
// For a moment two workers may work on one partition: the lease only makes that rare. The watermark makes it harmless,
// because only one of them can move it.
type keeper struct {
	leaseConfig

	// wake makes the keeper renew at once: other workers gave partitions back, or an assignment of this one ended.
	wake wake.Signal

	tenures map[int]tenure
	surplus map[int]struct{} // to be given back as soon as their tenures have ended
	fitAt   time.Time        // when the worker was last fit
	failing bool
	// renewed is when the last successful renewal was begun (the store counts from later); zero before Run. Atomic
	// because readiness asks for it.
	renewed atomic.Pointer[time.Time]
}

// lastRenewal is when the last successful renewal began; zero before the first. It is safe for concurrent use.
func (k *keeper) lastRenewal() time.Time {
	if at := k.renewed.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

func newKeeper(cfg leaseConfig) *keeper {
	return &keeper{leaseConfig: cfg, wake: wake.NewSignal(), tenures: map[int]tenure{}, surplus: map[int]struct{}{}}
}

// run renews the leases until ctx ends. Then it ends all work and gives everything back, so that other workers need not wait
// for the leases to expire.
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
		timer.Reset(k.TTL / renewals)
	}
}

// renew makes one round: give back, renew, claim.
func (k *keeper) renew(ctx context.Context) {
	now := time.Now()
	if k.Fit() {
		k.fitAt = now
	}
	unfit := now.Sub(k.fitAt) > k.TTL
	if unfit {
		k.stopAll("the connection to NATS is lost")
		for p := range k.tenures {
			k.surplus[p] = struct{}{}
		}
	}
	release := k.reap()
	call, cancel := context.WithTimeout(ctx, k.TTL/2)
	defer cancel()
	answer, err := k.Store.Lease(call, &historyv1.LeaseRequest{
		Worker: k.Worker, TtlMs: uint32(k.TTL.Milliseconds()), Release: release, Stopping: unfit,
	})
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		k.Failures.Inc()
		if !k.failing {
			k.failing = true
			k.Log.Warn("could not renew the leases; trying again", "error", err)
		}
		if time.Since(k.lastRenewal()) > k.TTL {
			k.stopAll("the leases have expired")
		}
		return
	}
	if k.failing {
		k.failing = false
		k.Log.Info("the leases are renewed again")
	}
	k.renewed.Store(&now)
	for _, p := range release {
		delete(k.surplus, int(p))
	}
	if len(release) > 0 {
		k.Announce()
	}
	if !unfit {
		k.settle(answer)
		return
	}
	// A claim whose answer was lost: no work was started here, but renewing keeps other workers from it.
	for _, p := range answer.GetHeld() {
		if _, begun := k.tenures[int(p)]; !begun {
			k.surplus[int(p)] = struct{}{}
			k.wake.Raise()
		}
	}
}

// reap removes tenures that have ended and returns the partitions to give back.
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

// settle starts and stops work until it agrees with the leases that the store says this worker holds.
func (k *keeper) settle(answer *historyv1.LeaseResponse) {
	held := make(map[int]struct{}, len(answer.GetHeld()))
	for _, p := range answer.GetHeld() {
		held[int(p)] = struct{}{}
	}
	for p, t := range k.tenures {
		if _, ours := held[p]; !ours {
			if _, expected := k.surplus[p]; !expected {
				k.Log.Warn("lost the lease of a partition", "partition", p)
			}
			delete(k.surplus, p)
			t.Stop()
		}
	}
	wantedElsewhere, pinned := answer.GetHandOver(), answer.GetPinned()
	// Pinned partitions count first, so that only others are above the share.
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
				k.Moves.Inc()
				k.Log.Info("an operator moved a partition to another worker; handing it over", "partition", p)
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
			k.tenures[p] = k.Start(p, func() { k.wake.Raise() })
			taken = append(taken, p)
		}
		working++
	}
	if len(taken) > 0 {
		k.Log.Info("taking over partitions", "partitions", taken, "working_on", working)
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
		k.Log.Error("giving up all partitions", "reason", reason, "partitions", len(k.tenures))
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
	// All partitions, because a last call that was cut off may have claimed some. The store ignores those of other workers.
	release := make([]uint32, k.Partitions)
	for p := range release {
		release[p] = uint32(p)
	}
	ctx, cancel := context.WithTimeout(ctx, k.TTL/2)
	defer cancel()
	_, err := k.Store.Lease(ctx, &historyv1.LeaseRequest{
		Worker: k.Worker, TtlMs: uint32(k.TTL.Milliseconds()), Release: release, Stopping: true,
	})
	if err != nil {
		k.Log.Warn("could not give the leases back; they expire by themselves", "after", k.TTL, "error", err)
		return
	}
	k.Announce()
}
