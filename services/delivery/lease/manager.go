// Package lease manages the partitions of a worker: it renews the leases in the store, and starts and stops the work on a
// partition when its lease is gained or lost.
package lease

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

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/delivery/wake"
)

// renewals is the number of renewals during the duration of a lease.
const renewals = 4

// Store is the part of the store that a manager needs.
type Store interface {
	Lease(ctx context.Context, in *historyv1.LeaseRequest, opts ...grpc.CallOption) (*historyv1.LeaseResponse, error)
}

// Assignment is the work on one partition while this worker holds its lease.
type Assignment interface {
	// Stop tells the work to end; it does not wait.
	Stop()
	// Done is closed when the work has ended.
	Done() <-chan struct{}
	// Confirm reports to the work that the lease was renewed.
	Confirm()
}

// Config contains the dependencies of a manager. All fields are required.
type Config struct {
	Store      Store
	Worker     string // name of this worker
	Partitions int
	TTL        time.Duration
	Log        *slog.Logger
	// Failures counts failed renewals. Moves counts partitions that were released because an operator moved them.
	Failures, Moves prometheus.Counter

	// Start starts the work on a partition, and calls ended after it has ended.
	Start func(partition ids.Partition, ended func()) Assignment
	// Announce tells other workers that partitions are free.
	Announce func()
	// Fit reports whether this worker can work. A worker that is not fit releases its partitions to other workers.
	Fit func() bool
}

// Manager renews the leases of one worker. It starts the work on partitions that the store assigns to the worker, and
// ends the work on partitions that the store takes away. It releases partitions above its share, and partitions that an
// operator moved to another worker. A partition that an operator moved here stays, even above the share.
//
// For a moment two workers may work on one partition: the lease only makes this rare. The watermark makes it harmless, because
// only one of the workers can move it.
type Manager struct {
	Config

	// wake is raised to request a renewal at once.
	wake wake.Signal

	assignments map[ids.Partition]Assignment
	surplus     map[ids.Partition]struct{} // partitions that are released as soon as their assignments have ended
	fitAt       time.Time                  // when the worker was last fit
	failing     bool
	stoppedAll  bool // all work was stopped, and the reason is still present
	// lastRenewed is when the last successful renewal began (the store counts from a later time); zero before Run. It is
	// atomic because readiness checks read it.
	lastRenewed atomic.Pointer[time.Time]
}

// LastRenewal returns when the last successful renewal began; zero before the first. It is safe for concurrent use.
func (m *Manager) LastRenewal() time.Time {
	if at := m.lastRenewed.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// New makes a manager. Nothing happens until Run.
func New(cfg Config) *Manager {
	return &Manager{Config: cfg, wake: wake.NewSignal(), assignments: map[ids.Partition]Assignment{}, surplus: map[ids.Partition]struct{}{}}
}

// Run renews the leases until ctx ends. Then it ends all work and releases all leases, so that other workers need not wait for
// the leases to expire.
func (m *Manager) Run(ctx context.Context) {
	m.fitAt = time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			m.releaseAll(context.WithoutCancel(ctx))
			return
		case <-timer.C:
		case <-m.wake:
		}
		m.renew(ctx)
		timer.Reset(m.TTL / renewals)
	}
}

// RenewNow starts a renewal at once. It is called when other workers released partitions, or when an assignment of this
// worker ended.
func (m *Manager) RenewNow() { m.wake.Raise() }

// renew does one round: release, renew, claim.
func (m *Manager) renew(ctx context.Context) {
	now := time.Now()
	if m.Fit() {
		m.fitAt = now
	}
	unfit := now.Sub(m.fitAt) > m.TTL
	if unfit {
		m.stopAll("the connection to NATS is lost")
		for p := range m.assignments {
			m.surplus[p] = struct{}{}
		}
	}
	release := m.dropEnded()
	call, cancel := context.WithTimeout(ctx, m.TTL/2)
	defer cancel()
	answer, err := m.Store.Lease(call, &historyv1.LeaseRequest{
		Worker: m.Worker, TtlMs: uint32(m.TTL.Milliseconds()), Release: release, Stopping: unfit,
	})
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		m.Failures.Inc()
		if !m.failing {
			m.failing = true
			m.Log.Warn("could not renew the leases; trying again", "error", err)
		}
		if time.Since(m.LastRenewal()) > m.TTL {
			m.stopAll("the leases have expired")
		}
		return
	}
	if m.failing {
		m.failing = false
		m.Log.Info("the leases are renewed again")
	}
	m.lastRenewed.Store(&now)
	for _, p := range release {
		delete(m.surplus, ids.Partition(p))
	}
	if len(release) > 0 {
		m.Announce()
	}
	if !unfit {
		m.stoppedAll = false
		m.reconcile(answer)
		return
	}
	// The answer to an earlier claim was lost, so no work was started on these partitions. Renewing their leases would
	// keep other workers from them.
	for _, p := range answer.GetHeld() {
		if _, begun := m.assignments[ids.Partition(p)]; !begun {
			m.surplus[ids.Partition(p)] = struct{}{}
			m.wake.Raise()
		}
	}
}

// dropEnded removes assignments that have ended and returns their partitions, to be released.
func (m *Manager) dropEnded() []uint32 {
	for p, t := range m.assignments {
		select {
		case <-t.Done():
			delete(m.assignments, p)
		default:
		}
	}
	var release []uint32
	for _, p := range slices.Sorted(maps.Keys(m.surplus)) {
		if _, ending := m.assignments[p]; !ending {
			release = append(release, uint32(p))
		}
	}
	return release
}

// reconcile starts and stops work until it matches the leases that this worker holds according to the store.
func (m *Manager) reconcile(answer *historyv1.LeaseResponse) {
	held := make(map[ids.Partition]struct{}, len(answer.GetHeld()))
	for _, p := range answer.GetHeld() {
		held[ids.Partition(p)] = struct{}{}
	}
	var lost []int
	for p, t := range m.assignments {
		if _, ours := held[p]; !ours {
			if _, expected := m.surplus[p]; !expected {
				lost = append(lost, int(p))
			}
			delete(m.surplus, p)
			t.Stop()
		}
	}
	if len(lost) > 0 {
		slices.Sort(lost)
		m.Log.Warn("lost the leases of partitions", "partitions", lost)
	}
	wantedElsewhere, pinned := answer.GetHandOver(), answer.GetPinned()
	// Pinned partitions come first, so that only other partitions can be above the share.
	order := slices.SortedFunc(maps.Keys(held), func(a, b ids.Partition) int {
		return cmp.Or(rank(pinned, a)-rank(pinned, b), cmp.Compare(a, b))
	})
	var taken []ids.Partition
	working, again := 0, false
	for _, p := range order {
		if _, leaving := m.surplus[p]; leaving {
			continue
		}
		t, begun := m.assignments[p]
		handOver := slices.Contains(wantedElsewhere, uint32(p))
		switch {
		case handOver || (working >= int(answer.GetShare()) && !slices.Contains(pinned, uint32(p))):
			if handOver {
				m.Moves.Inc()
				m.Log.Info("an operator moved a partition to another worker; handing it over", "partition", p)
			}
			m.surplus[p] = struct{}{}
			if begun {
				t.Stop()
			} else {
				again = true
			}
			continue
		case begun:
			t.Confirm()
		default:
			m.assignments[p] = m.Start(p, m.RenewNow)
			taken = append(taken, p)
		}
		working++
	}
	if len(taken) > 0 {
		m.Log.Info("taking over partitions", "partitions", taken, "working_on", working)
	}
	if again {
		m.wake.Raise() // released although its work never started
	}
}

func rank(pinned []uint32, partition ids.Partition) int {
	if slices.Contains(pinned, uint32(partition)) {
		return 0
	}
	return 1
}

// stopAll stops all work. It is called at each renewal while the reason is present, and logs the reason only the first
// time.
func (m *Manager) stopAll(reason string) {
	if len(m.assignments) > 0 && !m.stoppedAll {
		m.stoppedAll = true
		m.Log.Error("releasing all partitions", "reason", reason, "partitions", len(m.assignments))
	}
	for _, t := range m.assignments {
		t.Stop()
	}
}

// releaseAll ends all work and releases all leases.
func (m *Manager) releaseAll(ctx context.Context) {
	for _, t := range m.assignments {
		t.Stop()
	}
	for _, t := range m.assignments {
		<-t.Done()
	}
	// Release all partitions: a last call that was cut off may have claimed some. The store ignores leases of other
	// workers.
	release := make([]uint32, m.Partitions)
	for p := range release {
		release[p] = uint32(p)
	}
	ctx, cancel := context.WithTimeout(ctx, m.TTL/2)
	defer cancel()
	_, err := m.Store.Lease(ctx, &historyv1.LeaseRequest{
		Worker: m.Worker, TtlMs: uint32(m.TTL.Milliseconds()), Release: release, Stopping: true,
	})
	if err != nil {
		m.Log.Warn("could not release the leases; they expire by themselves", "after", m.TTL, "error", err)
		return
	}
	m.Announce()
}
