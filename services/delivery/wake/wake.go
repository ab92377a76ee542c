// Package wake contains a signal that wakes a goroutine. Several raises before the signal is received count as one.
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

// Clear withdraws the signal if it has not been received yet.
func (s Signal) Clear() {
	select {
	case <-s:
	default:
	}
}
