package listen

import "errors"

// Use is what a listener is for. It decides how many of the process's file descriptors the listener may have.
type Use int

// The uses.
const (
	ForClients Use = iota
	ForServices
	ForOperators
)

// The most descriptors that a process keeps for everything other than clients, and that the other listeners use by default. With a
// low limit they are shares of it.
const (
	reserve         = 2048
	maxForServices  = 512
	maxForOperators = 128
	// unknownLimit stands for the limit where the operating system does not tell.
	unknownLimit = 1 << 20
)

// ErrMaxSockets is returned for a number of sockets that no listener can have.
var ErrMaxSockets = errors.New("max-sockets must not be negative")

// MaxSockets is the number of sockets that a listener may have: the setting, or, if that is 0, a share of the descriptors that the
// process may have open. The rest is for files, the store and NATS.
func MaxSockets(use Use, setting int) (int, error) {
	switch {
	case setting < 0:
		return 0, ErrMaxSockets
	case setting > 0:
		return setting, nil
	}
	return share(use, Descriptors()), nil
}

func share(use Use, limit int) int {
	switch use {
	case ForServices:
		return max(min(limit/8, maxForServices), 1)
	case ForOperators:
		return max(min(limit/16, maxForOperators), 1)
	default:
		return max(limit-min(limit/2, reserve), 1)
	}
}
