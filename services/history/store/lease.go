package store

import (
	"context"
	"slices"

	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"
)

// Leases knows who works on which partition.
type Leases interface {
	// Lease renews, releases and claims by the store's own clock; see Assign.
	Lease(ctx context.Context, request *historyv1.LeaseRequest) (*historyv1.LeaseResponse, error)
	// Leases gives all partitions with their leases, wishes and watermarks, and the workers that are live.
	Leases(ctx context.Context) (*historyv1.ListLeasesResponse, error)
	// Move stores the wish that a worker hold a partition; an empty worker takes the wish back. ErrNoWorker when it is not live.
	Move(ctx context.Context, partition uint32, worker string) error
}

// Lease is who works on a partition, and until when. Times are the store's, Unix time in milliseconds.
type Lease struct {
	Partition uint32
	// Worker is empty when nobody does.
	Worker  string
	UntilMs int64
	// Wanted is the worker that an operator wants it on; empty for any.
	Wanted string
}

// Assign carries out one lease request on the whole table of leases, ordered by partition, and the workers with the time
// until which each counts as live. It returns the leases that change and the answer.
//
// What the caller holds is renewed, even when it had run out, as long as nobody took it. What it releases is free for others at
// once, but not for itself in the same call. It claims what is free or has run out until it has its share; a worker that
// is stopping does not count, claims nothing and keeps what it has not listed, because it is still at work there.
//
// A partition that an operator wants on a live worker is that worker's alone to claim, at once and above its share, and
// whoever else holds it is told to hand it over. The wish ends with its worker: one that is not live any more is forgotten.
//
// The rest is shared out so that the workers' totals are within one of each other, as far as the wishes allow; see
// quota. Every partition given back brings the totals nearer together, so it settles.
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
		response.Held = append(response.Held, lease.Partition)
		switch lease.Wanted {
		case "":
		case worker:
			response.Pinned = append(response.Pinned, lease.Partition)
		default:
			response.HandOver = append(response.HandOver, lease.Partition)
		}
	}
	response.Share = uint32(len(response.GetPinned()) + most)
	return changed, response
}

// load is what a live worker has.
type load struct {
	wanted int // partitions that are wanted on it, here or still elsewhere
	loose  int // partitions that it holds and that may be anywhere
}

// renew takes what the caller returns, renews the rest of its leases, forgets the wishes of workers that are gone, and
// counts the loads.
func renew(nowMs int64, leases []Lease, live map[string]*load, request *historyv1.LeaseRequest) {
	for i := range leases {
		lease := &leases[i]
		if lease.Worker == request.GetWorker() {
			lease.UntilMs = nowMs + int64(request.GetTtlMs())
			if slices.Contains(request.GetRelease(), lease.Partition) {
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
		if !free || slices.Contains(request.GetRelease(), lease.Partition) {
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

// quota is how many loose partitions a worker should hold, so that everybody's total comes as near to the others' as
// the wishes allow: like water over an uneven floor, where some have more than the level wanted on them already.
//
// What does not divide evenly goes to those that have most, so that nothing moves without need. It also makes things
// settle: whoever is above its quota has at least two more than whoever is below, so a partition that goes from one to
// the other always evens the totals out.
func quota(partitions int, live map[string]*load, worker string) int {
	mine := live[worker]
	if mine == nil {
		return 0
	}
	// Those with more wanted on them than the level get nothing else, which lowers the level for the others.
	above := make(map[string]bool)
	for again := true; again; {
		again = false
		for name, load := range live {
			if !above[name] && load.wanted > partitions/(len(live)-len(above)) {
				above[name], again = true, true
				partitions -= load.wanted
				if len(above) == len(live) {
					return 0 // only if more were wanted than there are
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
