package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// link is one connection through a proxy.
//
//	accepted ──dialled──▶ carrying ──both ends done──▶ gone
//	    │                    ├── bytes were lost, one end has closed: stays half-open until the loss is over
//	    └── target away ─────┴── reset, hung up ──────▶ gone
//
// Two goroutines run it, one for each direction.
type link struct {
	proxy *Proxy
	near  *net.TCPConn // the connection from the client
	done  chan struct{}

	mu     sync.Mutex
	far    *net.TCPConn // the connection to the target; nil until it is made
	gone   bool
	abrupt bool // the connection ended with RST

	// lost records in which directions bytes were lost. Guarded by Proxy.mu.
	lost struct{ up, down bool }
}

func newLink(p *Proxy, near *net.TCPConn) *link {
	return &link{proxy: p, near: near, done: make(chan struct{})}
}

// carry runs the link until it ends.
func (l *link) carry() {
	defer l.proxy.forget(l)
	defer l.hangup()
	// The dial does not end with the link. Cancelling the dial would close the connection with FIN, but a reset link must
	// be reset on both sides.
	conn, err := net.DialTimeout("tcp", l.proxy.aimed(), dialTimeout)
	if err != nil {
		l.reset() // behaves as if no process listened
		return
	}
	far, _ := conn.(*net.TCPConn)
	if !l.reached(far) {
		return
	}
	for _, conn := range []*net.TCPConn{l.near, far} {
		_ = conn.SetReadBuffer(bufferBytes)
		_ = conn.SetWriteBuffer(bufferBytes)
	}
	var ways sync.WaitGroup
	ways.Go(func() { l.pump(l.near, far, func(w Weather) Flow { return w.Up }, &l.lost.up) })
	ways.Go(func() { l.pump(far, l.near, func(w Weather) Flow { return w.Down }, &l.lost.down) })
	ways.Wait()
	if l.half() {
		<-l.done
	}
}

// reached sets the connection to the target. If the link ended while the target was being dialled, that connection ends
// in the same way.
func (l *link) reached(far *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		shut(far, l.abrupt)
		return false
	}
	l.far = far
	return true
}

// half reports whether bytes, or the end of the connection, were lost.
func (l *link) half() bool {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	return l.lost.up || l.lost.down
}

// pump forwards bytes in one direction until the connection ends.
func (l *link) pump(from, to *net.TCPConn, way func(Weather) Flow, lost *bool) {
	buffer := make([]byte, chunkBytes)
	for {
		n, err := from.Read(buffer)
		at := time.Now()
		if n > 0 && !l.pass(buffer[:n], at, to, way, lost) {
			return
		}
		switch {
		case err == nil:
			continue
		case !l.pass(nil, at, to, way, lost): // the end of the connection is delayed or lost like bytes
		case errors.Is(err, io.EOF):
			_ = to.CloseWrite()
		default:
			l.reset()
		}
		return
	}
}

// pass forwards data according to the weather; if data is empty, it forwards the end of the connection. It returns false
// if nothing is left to do: the end was lost, or the link has ended.
func (l *link) pass(data []byte, since time.Time, to *net.TCPConn, way func(Weather) Flow, lost *bool) bool {
	isEnd := len(data) == 0
	for {
		flow, changed := l.weather(way, lost)
		switch {
		case flow.Hold:
			if !l.wait(changed, nil) {
				return false
			}
			continue
		case flow.Lose:
			return !isEnd
		}
		if wait := flow.Delay - time.Since(since); wait > 0 {
			timer := time.NewTimer(wait)
			there := l.wait(changed, timer.C)
			timer.Stop()
			if !there {
				return false
			}
			continue
		}
		if isEnd {
			return true
		}
		piece, rest := data, time.Duration(0)
		if flow.Rate > 0 {
			const pieces = 20 // per second
			piece = data[:min(len(data), max(1, flow.Rate/pieces))]
			rest = time.Duration(len(piece)) * time.Second / time.Duration(flow.Rate)
		}
		if _, err := to.Write(piece); err != nil {
			l.reset()
			return false
		}
		if data = data[len(piece):]; rest > 0 {
			timer := time.NewTimer(rest)
			there := l.wait(changed, timer.C)
			timer.Stop()
			if !there {
				return false
			}
		}
		if len(data) == 0 {
			return true
		}
	}
}

// weather returns the present flow in one direction, and the channel that is closed when the weather changes. It records
// a loss under the lock under which the weather changes, so that no affected link is missed when the loss is over.
func (l *link) weather(way func(Weather) Flow, lost *bool) (Flow, <-chan struct{}) {
	l.proxy.mu.Lock()
	defer l.proxy.mu.Unlock()
	flow := way(l.proxy.weather)
	if flow.Lose && !flow.Hold {
		*lost = true
	}
	return flow, l.proxy.changed
}

// wait waits for a change of the weather or for a timer. It returns false if the link has ended.
func (l *link) wait(changed <-chan struct{}, timer <-chan time.Time) bool {
	select {
	case <-changed:
		return true
	case <-timer:
		return true
	case <-l.done:
		return false
	}
}

// reset ends both connections with RST.
func (l *link) reset() { l.finish(true) }

// hangup ends both connections with FIN.
func (l *link) hangup() { l.finish(false) }

func (l *link) finish(abrupt bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return
	}
	l.gone, l.abrupt = true, abrupt
	close(l.done)
	shut(l.near, abrupt)
	if l.far != nil {
		shut(l.far, abrupt)
	}
}

func shut(conn *net.TCPConn, abrupt bool) {
	if abrupt {
		_ = conn.SetLinger(0)
	}
	_ = conn.Close()
}
