//go:build linux

package load

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// ackDelay is how long acknowledgements are collected, as in the SDKs.
	ackDelay = 200 * time.Millisecond
	// readBytes is the maximum size of one read. It fits into the processor's cache, so that scanning is fast.
	readBytes = 128 << 10
	maxEvents = 512
	// keptFailures is the number of failures whose text is kept.
	keptFailures = 5
)

// Loop serves the connections of all clients on one goroutine.
type Loop struct {
	epoll   int
	wake    [2]int
	clients []*Client // by file descriptor
	buffer  []byte
	acks    []dueAck // by rising time
	handler atomic.Pointer[Handler]
	done    chan struct{}
	bytes   atomic.Uint64
	repeats atomic.Uint64

	mu       sync.Mutex
	posted   []func()
	stopping bool
	failed   int
	failures []error
}

type dueAck struct {
	client *Client
	due    int64
}

// NewLoop starts a loop; Close ends it.
func NewLoop(handler Handler) (*Loop, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make an epoll instance: %w", err)
	}
	l := &Loop{epoll: epoll, buffer: make([]byte, readBytes), done: make(chan struct{})}
	if err := syscall.Pipe2(l.wake[:], syscall.O_CLOEXEC|syscall.O_NONBLOCK); err != nil {
		_ = syscall.Close(epoll)
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	if err := l.watch(l.wake[0], syscall.EPOLLIN, syscall.EPOLL_CTL_ADD); err != nil {
		l.release()
		return nil, err
	}
	l.handler.Store(&handler)
	go l.run()
	return l, nil
}

// Handle replaces the handler. Data read afterwards is passed to the new handler.
func (l *Loop) Handle(handler Handler) { l.Do(func() { l.handler.Store(&handler) }) }

// Do runs fn on the loop and waits for it. It must not be called on the loop.
func (l *Loop) Do(fn func()) {
	ran := make(chan struct{})
	if !l.post(func() { fn(); close(ran) }) {
		<-l.done
		fn() // the loop has ended, so no other goroutine uses the clients
		return
	}
	select {
	case <-ran:
	case <-l.done:
	}
}

func (l *Loop) post(fn func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping {
		return false
	}
	l.posted = append(l.posted, fn)
	if len(l.posted) == 1 {
		_, _ = syscall.Write(l.wake[1], []byte{0}) // if the pipe is full, the loop wakes up anyway
	}
	return true
}

// Connect begins to connect a client to a gateway. addr is host:port with an IPv4 address. Handler.Connected reports the
// end.
func (l *Loop) Connect(c *Client, addr string) {
	l.post(func() {
		if err := l.dial(c, addr); err != nil {
			l.drop(c, err.Error())
		}
	})
}

// Disconnect closes connections without a close frame, like clients that disappear.
func (l *Loop) Disconnect(clients ...*Client) {
	l.Do(func() {
		for _, c := range clients {
			l.close(c)
		}
	})
}

// Failures returns the failures so far: holes, unexpected frames and closes. Only the first few have their text.
func (l *Loop) Failures() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == 0 {
		return nil
	}
	return fmt.Errorf("%d failures, the first: %w", l.failed, errors.Join(l.failures...))
}

// Bytes returns the number of bytes read from all connections.
func (l *Loop) Bytes() uint64 { return l.bytes.Load() }

// Repeats returns the number of events that were received again.
func (l *Loop) Repeats() uint64 { return l.repeats.Load() }

// Close ends all connections and waits for the loop to end.
func (l *Loop) Close() {
	l.post(func() {
		for _, c := range l.clients {
			if c != nil {
				l.close(c)
			}
		}
		l.mu.Lock()
		l.stopping = true
		l.mu.Unlock()
	})
	<-l.done
}

func (l *Loop) run() {
	defer close(l.done)
	defer l.release()
	ready := make([]syscall.EpollEvent, maxEvents)
	for {
		n, err := syscall.EpollWait(l.epoll, ready, l.timeout())
		if err != nil && !errors.Is(err, syscall.EINTR) {
			l.fail(fmt.Errorf("wait for the network: %w", err))
			return
		}
		for _, event := range ready[:max(n, 0)] {
			if int(event.Fd) == l.wake[0] {
				var drained [64]byte
				_, _ = syscall.Read(l.wake[0], drained[:])
				continue
			}
			if c := l.clients[event.Fd]; c != nil {
				l.ready(c)
			}
		}
		l.flushAcks()
		l.mu.Lock()
		posted := l.posted
		l.posted = nil
		l.mu.Unlock()
		for _, fn := range posted {
			fn()
		}
		l.mu.Lock()
		stopping := l.stopping
		l.mu.Unlock()
		if stopping {
			return
		}
	}
}

func (l *Loop) release() {
	for _, fd := range []int{l.epoll, l.wake[0], l.wake[1]} {
		_ = syscall.Close(fd)
	}
}

// timeout returns how long to wait for the network, in milliseconds.
func (l *Loop) timeout() int {
	if len(l.acks) == 0 {
		return -1
	}
	return int(max(0, l.acks[0].due-Now())/int64(time.Millisecond)) + 1
}

func (l *Loop) watch(fd int, events uint32, op int) error {
	if err := syscall.EpollCtl(l.epoll, op, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("watch a socket: %w", err)
	}
	return nil
}

func (l *Loop) dial(c *Client, addr string) error {
	if c.state != stateClosed {
		return fmt.Errorf("%s is connected already", c.User)
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return fmt.Errorf("the address of a gateway: %w", err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	if err == nil || errors.Is(err, syscall.EINPROGRESS) {
		err = l.watch(fd, syscall.EPOLLOUT, syscall.EPOLL_CTL_ADD)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return fmt.Errorf("connect to %s: %w", addr, err)
	}
	for len(l.clients) <= fd {
		l.clients = append(l.clients, nil)
	}
	l.clients[fd] = c
	c.mu.Lock()
	c.fd = fd
	c.mu.Unlock()
	c.state, c.addr, c.carry, c.closedAs = stateDialing, addr, nil, ""
	return nil
}

// ready handles a readable, writable or broken socket.
func (l *Loop) ready(c *Client) {
	if c.state == stateDialing {
		code, err := syscall.GetsockoptInt(c.fd, syscall.SOL_SOCKET, syscall.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		if err == nil {
			_, err = syscall.Write(c.fd, upgrade(c.addr))
		}
		if err == nil {
			err = l.watch(c.fd, syscall.EPOLLIN, syscall.EPOLL_CTL_MOD)
		}
		if err != nil {
			l.drop(c, fmt.Sprintf("connect to %s: %v", c.addr, err))
			return
		}
		c.state = stateUpgrading
		return
	}
	kept := copy(l.buffer, c.carry)
	if kept == len(l.buffer) {
		l.buffer = append(l.buffer, make([]byte, len(l.buffer))...) // the frame is larger than all frames before
	}
	n, err := syscall.Read(c.fd, l.buffer[kept:])
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return
	case err != nil:
		l.drop(c, err.Error())
		return
	case n == 0:
		l.drop(c, "end of stream")
		return
	}
	l.bytes.Add(uint64(n))
	now := Now()
	rest, err := l.take(c, l.buffer[:kept+n], now)
	switch {
	case errors.Is(err, errUnavailable):
		l.drop(c, err.Error()) // treated as if the gateway had closed its port
		return
	case err != nil:
		l.fail(fmt.Errorf("%s: %w", c.User, err))
		l.close(c)
		return
	}
	if len(rest) == 0 {
		c.carry = c.carry[:0]
		if cap(c.carry) > 4<<10 && c.state != stateOpen {
			c.carry = nil
		}
		return
	}
	c.carry = append(c.carry[:0], rest...)
}

func (l *Loop) flushAcks() {
	if len(l.acks) == 0 {
		return
	}
	now, n := Now(), 0
	for n < len(l.acks) && l.acks[n].due <= now {
		c := l.acks[n].client
		n++
		c.ackWaiting = false
		if c.state != stateOpen {
			continue
		}
		if err := c.sendAck(); err != nil {
			l.drop(c, err.Error())
		}
	}
	if n == len(l.acks) {
		l.acks = l.acks[:0]
	} else {
		l.acks = l.acks[n:]
	}
}

// drop closes a connection that the server, or the network, has ended.
func (l *Loop) drop(c *Client, reason string) {
	if c.closedAs != "" {
		reason = c.closedAs
	}
	l.close(c)
	handler := *l.handler.Load()
	if err := handler.Closed(c, reason, Now()); err != nil {
		l.fail(fmt.Errorf("%s: %w", c.User, err))
	}
}

func (l *Loop) close(c *Client) {
	c.mu.Lock()
	fd := c.fd
	c.fd, c.open = -1, false
	c.mu.Unlock()
	if fd >= 0 {
		l.clients[fd] = nil
		_ = syscall.Close(fd) // closing the socket also removes it from epoll
	}
	c.state, c.carry = stateClosed, nil
}

func (l *Loop) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
	if len(l.failures) < keptFailures {
		l.failures = append(l.failures, err)
	}
}
