package sqlite

import "time"

const (
	// enoughWrites is the number of writes that need not wait for more: they share the fixed costs of a commit already, and
	// each further write would save little.
	enoughWrites = 4
	// crowd is the number of writes that must be expected within the longest wait for a wait to be worth it.
	crowd = 2
	// paceMemory is how long the past counts in the rate of writes.
	paceMemory = 100 * time.Millisecond
)

// pace decides how long a group waits for more writes before its commit begins. While writes are rare it does not wait. While
// they crowd, a transaction begins no sooner than longest after the one before, unless enough writes have been collected. A
// commit that takes that long by itself collects the next group meanwhile, so then nothing waits either.
type pace struct {
	longest time.Duration // 0: never waits
	rate    float64       // writes per second
	begun   time.Time     // when the last group began
}

// wait returns how long a group of a number of writes should wait for more.
func (p *pace) wait(now time.Time, writes int) time.Duration {
	if writes >= enoughWrites || p.rate*p.longest.Seconds() < crowd {
		return 0
	}
	return max(0, p.longest-now.Sub(p.begun))
}

// begin records that a group of a number of writes begins.
func (p *pace) begin(now time.Time, writes int) {
	memory := paceMemory.Seconds()
	// A weighted mean of the former rate and of that since the last group.
	p.rate = (p.rate*memory + float64(writes)) / (memory + now.Sub(p.begun).Seconds())
	p.begun = now
}
