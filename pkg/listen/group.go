package listen

import (
	"container/list"
	"net"
	"net/netip"
)

// AddressOf is the part of an address that belongs to one client: an IPv4 address, or the /64 of an IPv6 address, of which a
// client may use any address it likes.
func AddressOf(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	prefix, _ := address.Prefix(bits) // the zero value for an invalid address
	return prefix
}

// NetworkOf is the /48 of an IPv6 address, which is the most that one site usually has. It is invalid for an IPv4 address.
func NetworkOf(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	if !address.Is6() {
		return netip.Prefix{}
	}
	prefix, _ := address.Prefix(48)
	return prefix
}

func addressOf(address net.Addr) netip.Addr {
	if tcp, ok := address.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	parsed, _ := netip.ParseAddrPort(address.String()) // invalid for what is no IP address
	return parsed.Addr().Unmap()
}

// ages are sockets, oldest first.
type ages struct{ list.List }

func (a *ages) oldest() *Conn {
	c, _ := a.Front().Value.(*Conn) // always is one
	return c
}

// groups are sockets by address or network.
type groups map[netip.Prefix]*ages

func (g groups) join(key netip.Prefix, c *Conn) *list.Element {
	group := g[key]
	if group == nil {
		group = &ages{}
		g[key] = group
	}
	return group.PushBack(c)
}

func (g groups) leave(key netip.Prefix, element *list.Element) {
	group := g[key]
	group.Remove(element)
	if group.Len() == 0 {
		delete(g, key)
	}
}
