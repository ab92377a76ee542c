package listen

import "net"

// Reach says which machines can reach an address.
type Reach int

const (
	// ReachUnknown is of an address that contains a name, which must be resolved, or that is not host:port.
	ReachUnknown Reach = iota
	// ReachThisMachine is of a loopback address.
	ReachThisMachine
	// ReachOthers is of every other address.
	ReachOthers
)

// ReachOf tells from an address host:port alone which machines can reach it, without opening it.
func ReachOf(address string) Reach {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return ReachUnknown
	}
	ip := net.ParseIP(host)
	switch {
	case host == "localhost" || ip.IsLoopback():
		return ReachThisMachine
	case host == "" || ip != nil:
		return ReachOthers
	default:
		return ReachUnknown
	}
}
