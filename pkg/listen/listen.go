// Package listen opens the addresses that a process serves. Every listener limits the resources that a client can use
// before it is authenticated: the number of sockets, in total and from one address or network, and the time. It knows no
// protocol except the PROXY header of load balancers. The server above it reports when a client is authenticated.
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
	// MaxPerAddress limits the unauthenticated sockets of one IPv4 address or IPv6 /64. MaxPerNetwork limits those of one
	// IPv6 /48. Both default to MaxUnauthenticated. They do not apply to loopback addresses, because a proxy on this
	// machine may use them.
	MaxPerAddress, MaxPerNetwork int
	// ProxiesFrom are the networks of the load balancers that begin each connection with a PROXY header. Their
	// connections are closed if the header is missing. From other addresses the header is not accepted. Defaults to none.
	ProxiesFrom []netip.Prefix
	// Log receives a warning from time to time while sockets are closed because of a limit. Required.
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
// When a limit is reached, the oldest unauthenticated socket that counts towards it is closed to make room for the new socket: it had the
// most time to authenticate. Therefore a client that authenticates quickly is served even during a flood.
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
		return nil, err //nolint:wrapcheck // the error names the address
	}
	l, err := New(inner, cfg)
	if err != nil {
		_ = inner.Close() // the first error is returned
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

// Accept implements net.Listener. It closes sockets for which there is no room, so that they do not wait unnoticed in the
// operating system's queue.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		socket, err := l.Listener.Accept()
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
				l.closeOldest() // the server waits a moment, then tries again
			}
			return nil, err //nolint:wrapcheck // servers inspect the error
		}
		if conn := l.admit(socket); conn != nil {
			return conn, nil
		}
	}
}

// admit counts a socket, and closes other sockets if needed. It returns nil if there is no room for this socket.
func (l *Listener) admit(socket net.Conn) *Conn {
	c := &Conn{Conn: socket, listener: l, client: addressOf(socket.RemoteAddr())}
	c.proxied = l.fromProxy(c.client)
	l.mu.Lock()
	var closed []victim
	if !c.proxied {
		closed = l.makeRoomLocked(c)
		l.removeLocked(closed) // before the totals are checked
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
		_ = socket.Close() // the result does not matter
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

// identify counts a load balancer's socket towards the address of its client, which is in its PROXY header.
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

// makeRoomLocked returns the sockets that must be closed to make room for one more socket with the address and network of
// c.
func (l *Listener) makeRoomLocked(c *Conn) (closed []victim) {
	if c.client.IsLoopback() || !c.client.IsValid() {
		return nil
	}
	address, network := AddressOf(c.client), NetworkOf(c.client)
	if group := l.addresses[address]; group != nil && group.Len() >= l.cfg.MaxPerAddress {
		return []victim{{group.oldest(), reasonAddress}} // this socket counts towards the network as well
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

// leaveLocked stops counting an unauthenticated socket. It returns false if the socket was not counted.
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

// removeLocked removes sockets that will be closed from all counts.
func (l *Listener) removeLocked(closed []victim) {
	for _, v := range closed {
		l.leaveLocked(v.conn)
		if !v.conn.released {
			v.conn.released = true
			l.sockets--
		}
	}
}

// closeOldest closes the oldest unauthenticated socket, if any, because the process has no descriptor left.
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

// end closes sockets that were removed from all counts.
func (l *Listener) end(closed []victim) {
	for _, v := range closed {
		l.note(v.reason, v.conn)
		_ = v.conn.Conn.Close() // the result does not matter
	}
}

// note counts a socket that is closed because of a limit, and warns the operator from time to time.
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
