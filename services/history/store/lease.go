package store

import (
	"context"
	"slices"

	"github.com/runnelhq/runnel/pkg/ids"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Leases stores which worker owns each partition.
type Leases interface {
	// Lease renews, releases and claims leases by the store's own clock; see Assign.
	Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error)
	// Leases returns all partitions with their leases, requested moves and watermarks, and the live workers.
	Leases(ctx context.Context) (*historyv1.ListLeasesResponse, error)
	// Move stores the request that a worker should own a partition; an empty worker withdraws the request. ErrNoWorker if
	// the worker is not live.
	Move(ctx context.Context, partition ids.Partition, worker string) error
}

// Lease is the ownership of a partition, and when it ends. Times are the store's, Unix time in milliseconds.
type Lease struct {
	Partition ids.Partition
	// Worker is empty if no worker owns the partition.
	Worker  string
	UntilMs int64
	// Wanted is the worker that should own the partition at an operator's request; empty if there is no request.
	Wanted string
}

// Assign carries out one lease request on the whole table of leases, ordered by partition, and on the workers with the time
// until which each counts as live. It returns the leases that change and the answer.
//
// The caller's leases are renewed, even if they had expired, unless another worker has claimed them. The leases that it
// releases are free for others at once, but not for itself in the same call. It claims free and expired leases until it has
// its share. A worker that is stopping is not counted and claims nothing; it keeps the leases that it has not released,
// because it still works on these partitions.
//
// A partition that an operator has moved to a live worker can be claimed only by that worker, at once and above its share,
// and its current owner is asked to hand it over. The request is deleted when its worker is no longer live.
//
// The other partitions are distributed so that the workers' totals differ by at most one, as far as the requested moves
// allow; see quota. Each released partition brings the totals closer together, so the distribution converges.
func Assign(nowMs int64, leases []Lease, workers map[string]int64, request *historyv1.LeaseRequest) ([]Lease, *historyv1.LeaseResponse) {
	worker := request.GetWorker()
	live := make(map[string]*load, len(workers)+1)
	for other, seenUntil := range workers {
		if other != worker && seenUntil > nowMs {
			live[other] = &load{}
		}
	}
	if !request.GetStopping() {
		live[worker] = &load{}
	}
	next := slices.Clone(leases)
	renew(nowMs, next, live, request)
	most := quota(len(leases), live, worker)
	if mine := live[worker]; mine != nil {
		claim(nowMs, next, mine, most, request)
	}
	response := &historyv1.LeaseResponse{}
	var changed []Lease
	for i, lease := range next {
		if lease != leases[i] {
			changed = append(changed, lease)
		}
		if lease.Worker != worker {
			continue
		}
		response.Held = append(response.Held, uint32(lease.Partition))
		switch lease.Wanted {
		case "":
		case worker:
			response.Pinned = append(response.Pinned, uint32(lease.Partition))
		default:
			response.HandOver = append(response.HandOver, uint32(lease.Partition))
		}
	}
	response.Share = uint32(len(response.GetPinned()) + most)
	return changed, response
}

// load is the number of partitions of a live worker.
type load struct {
	wanted int // partitions that operators moved to the worker, owned or not
	loose  int // partitions owned by the worker that are not moved to any worker
}

// renew frees the leases that the caller releases, renews its other leases, deletes requests for workers that are gone, and
// counts the loads.
func renew(nowMs int64, leases []Lease, live map[string]*load, request *historyv1.LeaseRequest) {
	for i := range leases {
		lease := &leases[i]
		if lease.Worker == request.GetWorker() {
			lease.UntilMs = nowMs + int64(request.GetTtlMs())
			if slices.Contains(request.GetRelease(), uint32(lease.Partition)) {
				lease.Worker, lease.UntilMs = "", 0
			}
		}
		if wanting := live[lease.Wanted]; wanting != nil {
			wanting.wanted++
			continue
		}
		lease.Wanted = ""
		if holding := live[lease.Worker]; holding != nil && lease.UntilMs > nowMs {
			holding.loose++
		}
	}
}

func claim(nowMs int64, leases []Lease, mine *load, most int, request *historyv1.LeaseRequest) {
	for i := range leases {
		lease := &leases[i]
		free := lease.Worker == "" || lease.UntilMs <= nowMs
		if !free || slices.Contains(request.GetRelease(), uint32(lease.Partition)) {
			continue
		}
		switch {
		case lease.Wanted == request.GetWorker():
		case lease.Wanted == "" && mine.loose < most:
			mine.loose++
		default:
			continue
		}
		lease.Worker, lease.UntilMs = request.GetWorker(), nowMs+int64(request.GetTtlMs())
	}
}

// quota returns how many unpinned partitions a worker should own, so that the totals of all workers are as equal as the
// requested moves allow. The totals are like a water level over an uneven floor: some workers already have more partitions
// moved to them than the level.
//
// The remainder of the division goes to the workers that own most, so that no partition moves without need. It also makes
// the distribution converge: a worker above its quota has at least two partitions more than a worker below, so moving a
// partition from one to the other always makes the totals more equal.
func quota(partitions int, live map[string]*load, worker string) int {
	mine := live[worker]
	if mine == nil {
		return 0
	}
	// Workers to which more partitions are moved than the level get no others, which lowers the level for the other
	// workers.
	above := make(map[string]bool)
	for again := true; again; {
		again = false
		for name, load := range live {
			if !above[name] && load.wanted > partitions/(len(live)-len(above)) {
				above[name], again = true, true
				partitions -= load.wanted
				if len(above) == len(live) {
					return 0 // happens only if more partitions are moved to workers than exist
				}
			}
		}
	}
	if above[worker] {
		return 0
	}
	level := partitions / (len(live) - len(above))
	left := partitions % (len(live) - len(above))
	total := mine.wanted + mine.loose
	for name, load := range live {
		if other := load.wanted + load.loose; !above[name] && (other > total || other == total && name < worker) {
			left--
		}
	}
	if left > 0 {
		level++
	}
	return level - mine.wanted
}
