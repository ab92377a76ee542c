package delivery

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// fakeLeases keeps leases as the store does, by the clock of the process (in a synctest bubble, that of the bubble).
type fakeLeases struct {
	mu         sync.Mutex
	partitions int
	owner      map[uint32]string
	until      map[uint32]time.Time
	workers    map[string]time.Time
	wanted     map[uint32]string
	down       bool
}

func newFakeLeases(partitions int) *fakeLeases {
	return &fakeLeases{partitions: partitions, owner: map[uint32]string{}, until: map[uint32]time.Time{}, workers: map[string]time.Time{}, wanted: map[uint32]string{}}
}

func (f *fakeLeases) Lease(_ context.Context, in *historyv1.LeaseRequest, _ ...grpc.CallOption) (*historyv1.LeaseResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, status.Error(codes.Unavailable, "down")
	}
	now := time.Now()
	until := now.Add(time.Duration(in.GetTtlMs()) * time.Millisecond)
	for _, p := range in.GetRelease() {
		if f.owner[p] == in.GetWorker() {
			delete(f.owner, p)
		}
	}
	if in.GetStopping() {
		delete(f.workers, in.GetWorker())
		return &historyv1.LeaseResponse{}, nil
	}
	f.workers[in.GetWorker()] = until
	live := 0
	for w, seen := range f.workers {
		if seen.Before(now) {
			delete(f.workers, w)
			continue
		}
		live++
	}
	share := (f.partitions + live - 1) / live
	answer := &historyv1.LeaseResponse{Share: uint32(share)}
	held := 0
	for p := range uint32(f.partitions) {
		if f.owner[p] == in.GetWorker() {
			f.until[p] = until
			held++
		}
	}
	for p := range uint32(f.partitions) {
		_, wantedLive := f.workers[f.wanted[p]]
		mine := f.wanted[p] == in.GetWorker()
		free := f.owner[p] == "" || f.until[p].Before(now)
		if free && !slices.Contains(in.GetRelease(), p) && (mine || (held < share && !wantedLive)) {
			f.owner[p], f.until[p] = in.GetWorker(), until
			held++
		}
		if f.owner[p] != in.GetWorker() {
			continue
		}
		answer.Held = append(answer.Held, p)
		switch {
		case mine:
			answer.Pinned = append(answer.Pinned, p)
		case wantedLive:
			answer.HandOver = append(answer.HandOver, p)
		}
	}
	return answer, nil
}

// want says which worker a partition shall be on; empty for any.
func (f *fakeLeases) want(partition uint32, worker string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wanted[partition] = worker
}

func (f *fakeLeases) take(partition uint32, worker string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.owner[partition], f.until[partition] = worker, time.Now().Add(time.Hour)
}

func (f *fakeLeases) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}
