// Package backoff waits between two tries of an operation: the wait doubles with each try, with jitter, up to a limit.
package backoff

import (
	"math/rand/v2"
	"time"
)

const (
	minWait = 50 * time.Millisecond
	maxWait = 2 * time.Second
)

// Wait waits for a random time between half of wait and wait, or until done is closed. It returns the value of wait for
// the next call. Pass 0 in the first call.
func Wait(done <-chan struct{}, wait time.Duration) (next time.Duration) {
	wait = max(wait, minWait)
	Pause(done, wait/2+rand.N(wait/2+1))
	return min(2*wait, maxWait)
}

// Pause waits, or returns early when done is closed.
func Pause(done <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-done:
	}
}
