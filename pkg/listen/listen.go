// Package listen opens the addresses that a process serves. Every listener limits what a client can cost before it is
// authenticated: the number of sockets, in total and from one address or network, and the time. It knows no protocol except the
// PROXY header of a load balancer; the server above it reports when a client is authenticated.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config describes a Listener.
type Config struct {
	// Name is the label of the metrics.
	Name string
	// Address is host:port.
	Address string
	// MaxSockets limits the open sockets. Required.
	MaxSockets int
	// Timeout limits the time from accepting a socket until its client is authenticated. Required.
	Timeout time.Duration
	// MaxUnauthenticated limits the sockets whose client is not authenticated. Defaults to MaxSockets.
	MaxUnauthenticated int
	// MaxPerAddress limits the unauthenticated sockets of one IPv4 address or IPv6 /64, MaxPerNetwork those of one IPv6 /48. Both
	// default to MaxUnauthenticated. They do not apply to loopback addresses, which may be those of a proxy on this machine.
	MaxPerAddress, MaxPerNetwork int
	// ProxiesFrom are the networks of the load balancers that begin each connection with a PROXY header. Without the header their
	// connections are closed; from other addresses the header is not accepted. Defaults to none.
	ProxiesFrom []netip.Prefix
	// Log receives a warning now and then when sockets are closed because of a limit. Required.
	Log *slog.Logger
	// Registerer receives the metrics. Required.
	Registerer prometheus.Registerer
}

// Listener is a net.Listener with limits. Its connections are of type *Conn.
//
//	accepted ──▶ unauthenticated ──Authenticated──▶ authenticated ──▶ closed
//	   │              └── timeout, or the oldest when a limit is reached ──▲
//	   └── all sockets belong to authenticated clients ────────────────────┘
//
// When a limit is reached, the oldest unauthenticated socket that counts towards it is closed in favour of the new one: it had the
// most time. A client that authenticates quickly is therefore served during a flood.
type Listener struct {
	net.Listener

	cfg     Config
	metrics *metrics
	warning warning

	mu        sync.Mutex
	sockets   int
	all       ages // all unauthenticated sockets
	addresses groups
	networks  groups
}

// Open listens on an address.
func Open(cfg Config) (*Listener, error) {
	inner, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Address)
	if err != nil {
		return nil, err //nolint:wrapcheck // names the address
	}
	l, err := New(inner, cfg)
	if err != nil {
		_ = inner.Close() // the reason above matters more
		return nil, err
	}
	return l, nil
}

// New puts limits on a listener.
func New(inner net.Listener, cfg Config) (*Listener, error) {
	if cfg.MaxSockets < 1 || cfg.Timeout <= 0 {
		return nil, fmt.Errorf("listener %s: the number of sockets and the time must be limited", cfg.Name)
	}
	if cfg.MaxUnauthenticated <= 0 {
		cfg.MaxUnauthenticated = cfg.MaxSockets
	}
	if cfg.MaxPerAddress <= 0 {
		cfg.MaxPerAddress = cfg.MaxUnauthenticated
	}
	if cfg.MaxPerNetwork <= 0 {
		cfg.MaxPerNetwork = cfg.MaxUnauthenticated
	}
	registered, err := newMetrics(cfg.Name, cfg.Registerer)
	if err != nil {
		return nil, err
	}
	registered.max.Set(float64(cfg.MaxSockets))
	return &Listener{Listener: inner, cfg: cfg, metrics: registered, warning: newWarning(cfg), addresses: groups{}, networks: groups{}}, nil
}

// Accept implements net.Listener. Sockets for which there is no room are closed here, so that they do not wait in the operating
// system's queue, where nobody sees them.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		socket, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.closeOldest() // the server waits a moment, then tries again
			}
			return nil, err //nolint:wrapcheck // servers look at it
		}
		if conn := l.admit(socket); conn != nil {
			return conn, nil
		}
	}
}

// admit counts a socket, and closes others if it must. It returns nil if there is no room for this one.
func (l *Listener) admit(socket net.Conn) *Conn {
	c := &Conn{Conn: socket, listener: l, client: addressOf(socket.RemoteAddr())}
	c.proxied = l.fromProxy(c.client)
	l.mu.Lock()
	var closed []victim
	if !c.proxied {
		closed = l.makeRoomLocked(c)
		l.removeLocked(closed) // before the totals are looked at
	}
	switch {
	case l.all.Len() >= l.cfg.MaxUnauthenticated:
		closed = append(closed, victim{l.all.oldest(), reasonUnauthenticated})
	case l.sockets >= l.cfg.MaxSockets && l.all.Len() > 0:
		closed = append(closed, victim{l.all.oldest(), reasonFull})
	}
	l.removeLocked(closed)
	full := l.sockets >= l.cfg.MaxSockets
	if !full {
		l.sockets++
		c.inAll = l.all.PushBack(c)
		if !c.proxied {
			l.joinLocked(c)
		}
		c.timeout = time.AfterFunc(l.cfg.Timeout, c.expire)
	}
	l.gaugeLocked()
	l.mu.Unlock()
	l.end(closed)
	if full {
		l.note(reasonFull, c)
		_ = socket.Close() // nobody waits for the result
		return nil
	}
	return c
}

func (l *Listener) fromProxy(peer netip.Addr) bool {
	for _, prefix := range l.cfg.ProxiesFrom {
		if prefix.Contains(peer) {
			return true
		}
	}
	return false
}

// identify counts a socket of a load balancer towards its client's address, which its PROXY header names.
func (l *Listener) identify(c *Conn, client netip.Addr) {
	l.mu.Lock()
	c.client = client
	var closed []victim
	if c.inAll != nil {
		closed = l.makeRoomLocked(c)
		l.removeLocked(closed)
		l.joinLocked(c)
	}
	l.gaugeLocked()
	l.mu.Unlock()
	l.end(closed)
}

// makeRoomLocked returns the sockets that must be closed for one more of the same address and network.
func (l *Listener) makeRoomLocked(c *Conn) (closed []victim) {
	if c.client.IsLoopback() || !c.client.IsValid() {
		return nil
	}
	address, network := AddressOf(c.client), NetworkOf(c.client)
	if group := l.addresses[address]; group != nil && group.Len() >= l.cfg.MaxPerAddress {
		return []victim{{group.oldest(), reasonAddress}} // counts towards the network as well
	}
	if group := l.networks[network]; network.IsValid() && group != nil && group.Len() >= l.cfg.MaxPerNetwork {
		return []victim{{group.oldest(), reasonNetwork}}
	}
	return nil
}

// joinLocked counts an unauthenticated socket towards its address and network.
func (l *Listener) joinLocked(c *Conn) {
	if c.client.IsLoopback() || !c.client.IsValid() {
		return
	}
	c.inAddress = l.addresses.join(AddressOf(c.client), c)
	if network := NetworkOf(c.client); network.IsValid() {
		c.inNetwork = l.networks.join(network, c)
	}
}

// leaveLocked ends the count of an unauthenticated socket. It returns false if the socket is not one.
func (l *Listener) leaveLocked(c *Conn) bool {
	if c.inAll == nil {
		return false
	}
	l.all.Remove(c.inAll)
	c.inAll = nil
	if c.inAddress != nil {
		l.addresses.leave(AddressOf(c.client), c.inAddress)
	}
	if c.inNetwork != nil {
		l.networks.leave(NetworkOf(c.client), c.inNetwork)
	}
	c.timeout.Stop()
	return true
}

// removeLocked takes sockets that are going to be closed out of all counts.
func (l *Listener) removeLocked(closed []victim) {
	for _, v := range closed {
		l.leaveLocked(v.conn)
		if !v.conn.released {
			v.conn.released = true
			l.sockets--
		}
	}
}

// closeOldest closes the oldest unauthenticated socket, if there is one, because the process has no descriptor left.
func (l *Listener) closeOldest() {
	l.mu.Lock()
	var closed []victim
	if l.all.Len() > 0 {
		closed = []victim{{l.all.oldest(), reasonDescriptors}}
		l.removeLocked(closed)
	}
	l.gaugeLocked()
	l.mu.Unlock()
	l.end(closed)
}

// end closes sockets that were taken out of all counts.
func (l *Listener) end(closed []victim) {
	for _, v := range closed {
		l.note(v.reason, v.conn)
		_ = v.conn.Conn.Close() // nobody waits for the result
	}
}

// note counts a socket that is closed because of a limit, and warns the operator now and then.
func (l *Listener) note(because reason, c *Conn) {
	l.metrics.closed[because].Inc()
	l.warning.write(because, c.client)
}

func (l *Listener) gaugeLocked() {
	l.metrics.open.Set(float64(l.sockets))
	l.metrics.unauthenticated.Set(float64(l.all.Len()))
}

// victim is a socket that is closed because of a limit.
type victim struct {
	conn   *Conn
	reason reason
}
