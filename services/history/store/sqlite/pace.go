package sqlite

import "time"

const (
	// enoughWrites is the number of writes that begin a commit at once. So many writes already share the fixed costs of a
	// commit, and each further write would save little.
	enoughWrites = 4
	// crowd is the number of writes expected within the longest wait from which waiting is worthwhile.
	crowd = 2
	// paceMemory is the period over which the rate of writes is averaged.
	paceMemory = 100 * time.Millisecond
)

// pace decides how long a group waits for more writes before its commit begins. While writes are rare, a group does not
// wait. While they are frequent, a transaction begins no sooner than longest after the previous one, unless enough writes
// are collected. A commit that itself takes that long collects the next group meanwhile, so that group does not wait
// either.
type pace struct {
	longest time.Duration // 0: never waits
	rate    float64       // writes per second
	begun   time.Time     // when the last group began
}

// wait returns how long a group of this many writes should wait for more writes.
func (p *pace) wait(now time.Time, writes int) time.Duration {
	if writes >= enoughWrites || p.rate*p.longest.Seconds() < crowd {
		return 0
	}
	return max(0, p.longest-now.Sub(p.begun))
}

// begin records that a group of this many writes begins.
func (p *pace) begin(now time.Time, writes int) {
	memory := paceMemory.Seconds()
	// The rate is a weighted mean of the former rate and the rate since the last group.
	p.rate = (p.rate*memory + float64(writes)) / (memory + now.Sub(p.begun).Seconds())
	p.begun = now
}
