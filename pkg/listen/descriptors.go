package listen

import "errors"

// Use is the purpose of a listener. It determines how many of the process's file descriptors the listener may use.
type Use int

// The uses.
const (
	ForClients Use = iota
	ForServices
	ForOperators
)

// The numbers of descriptors that a process reserves for everything other than clients, and that other listeners use by
// default. If the limit is low, they are shares of the limit.
const (
	reserve         = 2048
	maxForServices  = 512
	maxForOperators = 128
	// unknownLimit is used if the operating system does not report a limit.
	unknownLimit = 1 << 20
)

// ErrMaxSockets is the error for an invalid maximum number of sockets.
var ErrMaxSockets = errors.New("max-sockets must not be negative")

// MaxSockets returns the number of sockets that a listener may have: the setting or, if it is 0, a share of the
// descriptors that the process may open. The rest is for files, the store and NATS.
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
