package listen

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Conn is a connection of a Listener. The Listener counts it until it is closed.
type Conn struct {
	net.Conn

	listener *Listener
	proxied  bool // the connection begins with a PROXY header
	header   sync.Once
	remote   net.Addr // the client's address in the PROXY header; nil if there is no header
	failed   error    // the error of reading the PROXY header

	// Guarded by Listener.mu.
	client                      netip.Addr
	inAll, inAddress, inNetwork *list.Element // elements in the listener's lists while unauthenticated
	released                    bool
	timeout                     *time.Timer
}

var _ syscall.Conn = (*Conn)(nil)

// Of returns the Conn below a connection that a server got from a Listener, with or without TLS; nil if there is none.
func Of(conn net.Conn) *Conn {
	if secured, ok := conn.(*tls.Conn); ok {
		conn = secured.NetConn()
	}
	c, _ := conn.(*Conn)
	return c
}

type contextKey struct{}

// Context is for http.Server.ConnContext. It makes the connection available to Authenticated.
func Context(ctx context.Context, conn net.Conn) context.Context {
	if c := Of(conn); c != nil {
		return context.WithValue(ctx, contextKey{}, c)
	}
	return ctx
}

// Authenticated reports to the listener that the client of a request is authenticated. It returns false if the connection
// was closed before. For a request that did not come through a Listener it returns true.
func Authenticated(ctx context.Context) bool {
	if c, ok := ctx.Value(contextKey{}).(*Conn); ok {
		return c.Authenticated()
	}
	return true
}

// Authenticated reports to the listener that the client is authenticated: the connection no longer counts as
// unauthenticated and has no time limit. It returns false if the connection was closed before. Later calls change
// nothing.
func (c *Conn) Authenticated() bool {
	l := c.listener
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaveLocked(c) {
		l.gaugeLocked()
	}
	return !c.released
}

// expire closes a connection whose client was not authenticated in time.
func (c *Conn) expire() {
	l := c.listener
	l.mu.Lock()
	var closed []victim
	if c.inAll != nil {
		closed = []victim{{c, reasonTimeout}}
		l.removeLocked(closed)
	}
	l.gaugeLocked()
	l.mu.Unlock()
	l.end(closed)
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	l := c.listener
	l.mu.Lock()
	l.removeLocked([]victim{{conn: c}})
	l.gaugeLocked()
	l.mu.Unlock()
	return c.Conn.Close()
}

// RemoteAddr implements net.Conn. Behind a load balancer it returns the client's address, after waiting for the PROXY
// header.
func (c *Conn) RemoteAddr() net.Addr {
	c.readHeader()
	if c.remote != nil {
		return c.remote
	}
	return c.Conn.RemoteAddr()
}

// Read implements net.Conn.
func (c *Conn) Read(b []byte) (int, error) {
	if c.readHeader(); c.failed != nil {
		return 0, c.failed
	}
	return c.Conn.Read(b)
}

// Plain returns the socket. Writing to the socket is the same as writing to the Conn, but can send several buffers in one
// system call. The socket must be closed through the Conn.
func (c *Conn) Plain() net.Conn { return c.Conn }

// SyscallConn implements syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EINVAL
	}
	return sc.SyscallConn()
}

// CloseWrite closes the writing side of the socket.
func (c *Conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return syscall.EINVAL
	}
	return half.CloseWrite()
}

func (c *Conn) readHeader() {
	if !c.proxied {
		return
	}
	c.header.Do(func() {
		l := c.listener
		_ = c.SetReadDeadline(time.Now().Add(min(l.cfg.Timeout, proxyHeaderTimeout))) // an error shows up when reading
		source, err := readProxyHeader(c.Conn)
		if err != nil {
			c.failed = err
			l.note(reasonProxyHeader, c)
			_ = c.Close() // the result does not matter
			return
		}
		_ = c.SetReadDeadline(time.Time{})
		if source.IsValid() {
			c.remote = net.TCPAddrFromAddrPort(source)
			l.identify(c, source.Addr())
		} else {
			l.identify(c, addressOf(c.Conn.RemoteAddr()))
		}
	})
}
