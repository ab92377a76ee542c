package listen

import "net"

// Reach tells which machines can reach an address.
type Reach int

const (
	// ReachUnknown is for an address with a host name, which would have to be resolved, or not of the form host:port.
	ReachUnknown Reach = iota
	// ReachThisMachine is for a loopback address.
	ReachThisMachine
	// ReachOthers is for every other address.
	ReachOthers
)

// ReachOf returns which machines can reach an address host:port. It only looks at the address and does not open it.
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
