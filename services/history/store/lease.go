package store

import (
	"slices"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Lease is who works on a partition, and until when. Times are the store's, Unix time in milliseconds.
type Lease struct {
	Partition uint32
	// Worker is empty when nobody does.
	Worker  string
	UntilMs int64
}

// Assign carries out one lease request on the whole table of leases, ordered by partition, and the workers with the time
// until which each counts as live. It returns the leases that change and the answer.
//
// What the caller holds is renewed, even when it had run out, as long as nobody took it. What it releases is free for others at
// once, but not for itself in the same call. It claims what is free or has run out until it has its share; a worker that
// is stopping does not count, claims nothing and keeps what it has not listed, because it is still at work there.
func Assign(nowMs int64, leases []Lease, workers map[string]int64, request *historyv1.LeaseRequest) ([]Lease, *historyv1.LeaseResponse) {
	worker, until := request.GetWorker(), nowMs+int64(request.GetTtlMs())
	live := 0
	for other, seenUntil := range workers {
		if other != worker && seenUntil > nowMs {
			live++
		}
	}
	share := 0
	if !request.GetStopping() {
		live++
		share = (len(leases) + live - 1) / live
	}
	response := &historyv1.LeaseResponse{Share: uint32(share)}
	var changed []Lease
	for _, lease := range leases {
		if lease.Worker != worker {
			continue
		}
		if slices.Contains(request.GetRelease(), lease.Partition) {
			changed = append(changed, Lease{Partition: lease.Partition})
			continue
		}
		changed = append(changed, Lease{lease.Partition, worker, until})
		response.Held = append(response.Held, lease.Partition)
	}
	for _, lease := range leases {
		if len(response.GetHeld()) >= share {
			break
		}
		free := lease.Worker == "" || lease.UntilMs <= nowMs
		if free && lease.Worker != worker && !slices.Contains(request.GetRelease(), lease.Partition) {
			changed = append(changed, Lease{lease.Partition, worker, until})
			response.Held = append(response.Held, lease.Partition)
		}
	}
	slices.Sort(response.GetHeld())
	return changed, response
}
