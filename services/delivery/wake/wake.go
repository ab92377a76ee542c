// Package wake has the signal that wakes a goroutine: however often it is raised before it is seen, it is seen once.
package wake

// Signal is a channel that holds at most one token. Its receiver waits with <-.
type Signal chan struct{}

// NewSignal makes a signal that is not raised.
func NewSignal() Signal { return make(Signal, 1) }

// Raise raises the signal; it never blocks.
func (s Signal) Raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}

// Clear takes the signal back if nobody has seen it yet.
func (s Signal) Clear() {
	select {
	case <-s:
	default:
	}
}
