package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// The PROXY protocol of HAProxy, versions 1 and 2 (https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt): a load balancer
// begins each connection with the address of the client that it forwards.

const (
	// proxyHeaderTimeout limits the time for the header; load balancers send it with the first packet.
	proxyHeaderTimeout = 5 * time.Second
	// maxProxyLine is the maximum length of a version 1 header in the specification.
	maxProxyLine = 107
	// maxProxyBlock limits the addresses and extensions of a version 2 header. Those used in practice are below 300
	// bytes.
	maxProxyBlock = 2048
	proxyV2       = "\r\n\r\n\x00\r\nQUIT\n"
)

// ErrProxyHeader is the error of a load balancer's connection that does not begin with a valid PROXY header.
var ErrProxyHeader = errors.New("no valid PROXY header")

// readProxyHeader reads a header, and no byte after it. The result is invalid if the load balancer itself is the client,
// as in its health checks, or does not know the client's address.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	start := make([]byte, len(proxyV2)) // no header is shorter
	if _, err := io.ReadFull(r, start); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrProxyHeader, err)
	}
	if string(start) == proxyV2 {
		return readProxyBlock(r)
	}
	if !bytes.HasPrefix(start, []byte("PROXY ")) {
		return netip.AddrPort{}, ErrProxyHeader
	}
	line, one := start, make([]byte, 1)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) >= maxProxyLine {
			return netip.AddrPort{}, fmt.Errorf("%w: the line is too long", ErrProxyHeader)
		}
		if _, err := io.ReadFull(r, one); err != nil { // read single bytes: the bytes after the line belong to the client
			return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrProxyHeader, err)
		}
		line = append(line, one[0])
	}
	return parseProxyLine(strings.TrimSuffix(string(line), "\r\n"))
}

// parseProxyLine parses "PROXY TCP4 <client> <server> <client port> <server port>".
func parseProxyLine(line string) (netip.AddrPort, error) {
	fields := strings.Split(line, " ")
	if len(fields) >= 2 && fields[1] == "UNKNOWN" {
		return netip.AddrPort{}, nil
	}
	if len(fields) != 6 {
		return netip.AddrPort{}, ErrProxyHeader
	}
	client, err := netip.ParseAddr(fields[2])
	port, err2 := strconv.ParseUint(fields[4], 10, 16)
	if err != nil || err2 != nil || client.Zone() != "" || (fields[1] == "TCP4") != client.Is4() || (fields[1] == "TCP6") != client.Is6() {
		return netip.AddrPort{}, ErrProxyHeader
	}
	return netip.AddrPortFrom(client.Unmap(), uint16(port)), nil
}

// readProxyBlock reads the rest of a header of version 2: command, family, length, addresses, extensions.
func readProxyBlock(r io.Reader) (netip.AddrPort, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrProxyHeader, err)
	}
	size := binary.BigEndian.Uint16(head[2:])
	if head[0]>>4 != 2 || size > maxProxyBlock {
		return netip.AddrPort{}, ErrProxyHeader
	}
	block := make([]byte, size)
	if _, err := io.ReadFull(r, block); err != nil {
		return netip.AddrPort{}, fmt.Errorf("%w: %w", ErrProxyHeader, err)
	}
	switch head[0] & 0xf {
	case 0: // LOCAL: the load balancer itself
		return netip.AddrPort{}, nil
	case 1: // PROXY
	default:
		return netip.AddrPort{}, ErrProxyHeader
	}
	var width int
	switch head[1] {
	case 0x11: // TCP over IPv4
		width = 4
	case 0x21: // TCP over IPv6
		width = 16
	case 0: // unspecified
		return netip.AddrPort{}, nil
	default:
		return netip.AddrPort{}, fmt.Errorf("%w: not of a TCP connection", ErrProxyHeader)
	}
	if len(block) < 2*width+4 { // both addresses, both ports
		return netip.AddrPort{}, ErrProxyHeader
	}
	client, _ := netip.AddrFromSlice(block[:width])
	return netip.AddrPortFrom(client.Unmap(), binary.BigEndian.Uint16(block[2*width:])), nil
}
