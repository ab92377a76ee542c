// Package reclaim returns memory to the operating system when the process has become quiet. Go's collector runs when the heap has
// doubled, or after two minutes, and keeps what it frees for the next time that the heap doubles. A process that was busy and is quiet
// now therefore holds more than twice of what it uses. Package reclaim collects at once, and gives the rest back:
//
//	busy ──the free memory would last for quiet at the present rate──▶ quiet ──worth it──▶ collected, given back
//	  ▲                                                                  │
//	  └────────────────────── allocations ───────────────────────────────┘
//
// A busy process is left alone: it needs the room, and would only fetch the memory again.
package reclaim

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// interval is how often the process is looked at.
	interval = time.Second
	// quiet is how long the free memory must last at the present rate of allocation.
	quiet = 30 * time.Second
	// looks is how many times in a row the process must be found quiet.
	looks = 2
	// leastBytes and leastShare are the least that is worth a collection, in bytes and as a divisor of the process's memory.
	leastBytes = 8 << 20
	leastShare = 8
	// maxLoad limits the time for collections, as a divisor of the time between them.
	maxLoad = 100
)

// sample is the state of the Go heap, in bytes.
type sample struct {
	allocated uint64 // since the start of the process
	live      uint64 // found in use by the last collection
	objects   uint64 // in use, or garbage that is not collected yet
	free      uint64 // free, and not given back
	goal      uint64 // size of objects at which the next collection begins
	total     uint64 // all memory of the runtime that is not given back
}

// gain is the most that a collection can give back.
func (s sample) gain() uint64 { return s.objects - min(s.live, s.objects) + s.free }

// worthwhile reports whether the gain justifies a collection.
func (s sample) worthwhile() bool { return s.gain() >= max(leastBytes, s.total/leastShare) }

// quietSince reports whether the process allocated so little since an earlier sample, one interval before, that what is left until
// the next collection lasts for a long time.
func (s sample) quietSince(before sample) bool {
	left := s.goal - min(s.goal, s.objects)
	return (s.allocated-before.allocated)*uint64(quiet/interval) < left
}

// Reclaimer gives memory back. Make it with New.
type Reclaimer struct {
	log  *slog.Logger
	read func() sample
	free func()
}

// New makes a reclaimer for this process.
func New(log *slog.Logger) *Reclaimer {
	return &Reclaimer{log: log, read: reader(), free: debug.FreeOSMemory}
}

// Run works until ctx ends. It returns nil.
func (r *Reclaimer) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	before, inARow, next := r.read(), 0, time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := r.read()
		if now.quietSince(before) {
			inARow++
		} else {
			inARow = 0
		}
		before = now
		if begun := time.Now(); inARow >= looks && now.worthwhile() && !begun.Before(next) {
			r.free()
			took := time.Since(begun)
			before, inARow, next = r.read(), 0, time.Now().Add(maxLoad*took)
			r.log.Debug("memory was given back", "before_bytes", now.total, "after_bytes", before.total, "took", took.String())
		}
	}
}

// reader returns a function that reads the runtime's metrics.
func reader() func() sample {
	names := []string{
		"/gc/heap/allocs:bytes", "/gc/heap/live:bytes", "/memory/classes/heap/objects:bytes", "/memory/classes/heap/free:bytes",
		"/gc/heap/goal:bytes", "/memory/classes/total:bytes", "/memory/classes/heap/released:bytes",
	}
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	return func() sample {
		metrics.Read(samples)
		value := func(i int) uint64 { return samples[i].Value.Uint64() }
		return sample{allocated: value(0), live: value(1), objects: value(2), free: value(3), goal: value(4), total: value(5) - value(6)}
	}
}
