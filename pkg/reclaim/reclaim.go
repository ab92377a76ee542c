// Package reclaim returns memory to the operating system when the process has become quiet. Go's collector runs when the heap has
// doubled, or after two minutes. It keeps freed memory until the heap grows again. A process that was busy and is now quiet
// therefore holds more than twice the memory that it uses. Package reclaim collects at once, and returns the free memory:
//
//	busy ──the free memory lasts for quiet at the current rate──▶ quiet ──worth it──▶ collected, returned
//	  ▲                                                             │
//	  └────────────────────── allocations ──────────────────────────┘
//
// A busy process is left alone: it needs the free memory, and would request the memory again.
package reclaim

import (
	"context"
	"log/slog"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// interval is the time between two samples of the heap.
	interval = time.Second
	// quiet is how long the free memory must last at the current rate of allocation for the process to count as quiet.
	quiet = 30 * time.Second
	// looks is the number of consecutive quiet samples before a collection.
	looks = 2
	// leastBytes and leastShare define the smallest gain that justifies a collection: in bytes, and as a divisor of the
	// process's memory.
	leastBytes = 8 << 20
	leastShare = 8
	// maxLoad limits the time spent on collections, as a divisor of the time between two collections.
	maxLoad = 100
)

// sample is the state of the Go heap, in bytes.
type sample struct {
	allocated uint64 // allocated since the start of the process
	live      uint64 // in use at the last collection
	objects   uint64 // in use, or garbage that is not collected yet
	free      uint64 // free, but not returned to the operating system
	goal      uint64 // the size of objects at which the next collection begins
	total     uint64 // all memory of the runtime that is not returned to the operating system
}

// gain is the largest amount of memory that a collection can return.
func (s sample) gain() uint64 { return s.objects - min(s.live, s.objects) + s.free }

// worthwhile reports whether the gain justifies a collection.
func (s sample) worthwhile() bool { return s.gain() >= max(leastBytes, s.total/leastShare) }

// quietSince reports whether the process allocates slowly. It compares with a sample taken one interval earlier. At the
// current rate, the heap must take longer than quiet to reach the next collection.
func (s sample) quietSince(before sample) bool {
	left := s.goal - min(s.goal, s.objects)
	return (s.allocated-before.allocated)*uint64(quiet/interval) < left
}

// Reclaimer returns memory to the operating system. Make it with New.
type Reclaimer struct {
	log  *slog.Logger
	read func() sample
	free func()
}

// New makes a reclaimer for this process.
func New(log *slog.Logger) *Reclaimer {
	return &Reclaimer{log: log, read: reader(), free: debug.FreeOSMemory}
}

// Run takes samples and collects until ctx ends. It returns nil.
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
