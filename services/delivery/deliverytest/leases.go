// Package deliverytest contains shared code for tests of the delivery worker: a store in memory and builders of commands.
package deliverytest

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Leases assigns leases as the store does, by the clock of the process (in a synctest bubble, the bubble's clock).
type Leases struct {
	Mu         sync.Mutex
	Partitions int
	owner      map[ids.Partition]string
	until      map[ids.Partition]time.Time
	Workers    map[string]time.Time
	Wanted     map[ids.Partition]string
	down       bool
}

// NewLeases makes a store in which no partition is assigned.
func NewLeases(partitions int) *Leases {
	return &Leases{Partitions: partitions, owner: map[ids.Partition]string{}, until: map[ids.Partition]time.Time{}, Workers: map[string]time.Time{}, Wanted: map[ids.Partition]string{}}
}

// Lease renews, releases and assigns leases.
func (f *Leases) Lease(_ context.Context, in *historyv1.LeaseRequest, _ ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	if f.down {
		return nil, status.Error(codes.Unavailable, "down")
	}
	now := time.Now()
	until := now.Add(time.Duration(in.GetTtlMs()) * time.Millisecond)
	for _, p := range in.GetRelease() {
		if f.owner[ids.Partition(p)] == in.GetWorker() {
			delete(f.owner, ids.Partition(p))
		}
	}
	if in.GetStopping() {
		delete(f.Workers, in.GetWorker())
		return &historyv1.LeaseResponse{}, nil
	}
	f.Workers[in.GetWorker()] = until
	live := 0
	for w, seen := range f.Workers {
		if seen.Before(now) {
			delete(f.Workers, w)
			continue
		}
		live++
	}
	share := (f.Partitions + live - 1) / live
	answer := &historyv1.LeaseResponse{Share: uint32(share)}
	held := 0
	for p := range ids.Partition(f.Partitions) {
		if f.owner[p] == in.GetWorker() {
			f.until[p] = until
			held++
		}
	}
	for p := range ids.Partition(f.Partitions) {
		_, wantedLive := f.Workers[f.Wanted[p]]
		mine := f.Wanted[p] == in.GetWorker()
		free := f.owner[p] == "" || f.until[p].Before(now)
		if free && !slices.Contains(in.GetRelease(), uint32(p)) && (mine || (held < share && !wantedLive)) {
			f.owner[p], f.until[p] = in.GetWorker(), until
			held++
		}
		if f.owner[p] != in.GetWorker() {
			continue
		}
		answer.Held = append(answer.Held, uint32(p))
		switch {
		case mine:
			answer.Pinned = append(answer.Pinned, uint32(p))
		case wantedLive:
			answer.HandOver = append(answer.HandOver, uint32(p))
		}
	}
	return answer, nil
}

// MoveTo sets the worker that should own a partition, as an operator does; empty for any worker.
func (f *Leases) MoveTo(partition ids.Partition, worker string) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.Wanted[partition] = worker
}

// Assign gives a partition to a worker for an hour.
func (f *Leases) Assign(partition ids.Partition, worker string) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.owner[partition], f.until[partition] = worker, time.Now().Add(time.Hour)
}

// SetDown makes calls fail until it is called with false.
func (f *Leases) SetDown(down bool) {
	f.Mu.Lock()
	defer f.Mu.Unlock()
	f.down = down
}
