package listen

import (
	"container/list"
	"net"
	"net/netip"
)

// AddressOf returns the part of an address that identifies a client: an IPv4 address, or the /64 prefix of an IPv6
// address. A client can use any address in its /64.
func AddressOf(address netip.Addr) netip.Prefix {
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	prefix, _ := address.Prefix(bits) // an invalid address gives the zero value
	return prefix
}

// NetworkOf returns the /48 prefix of an IPv6 address, which is usually the largest network of a site. It is invalid for
// an IPv4 address.
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
	parsed, _ := netip.ParseAddrPort(address.String()) // invalid if the address is not an IP address
	return parsed.Addr().Unmap()
}

// ages is a list of sockets, oldest first.
type ages struct{ list.List }

func (a *ages) oldest() *Conn {
	c, _ := a.Front().Value.(*Conn) // the list contains only *Conn
	return c
}

// groups contains sockets by address or network.
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
