package proxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Flow describes what happens to bytes in one direction. The zero value lets them pass.
type Flow struct {
	// Hold delays all bytes until Hold is removed. It takes precedence over the other fields.
	Hold bool
	// Lose discards all bytes.
	Lose bool
	// Delay is the latency of bytes. Several chunks may be delayed at the same time, so only the buffers limit the
	// throughput.
	Delay time.Duration
	// Rate is the maximum number of bytes per second and connection; 0 for no limit.
	Rate int
}

// Weather is the state of the network. The zero value is a working network.
type Weather struct {
	// Up is the flow from the side that connects to the target. Down is the flow in the other direction.
	Up, Down Flow
	// Refuse resets new connections.
	Refuse bool
}

// Limits.
const (
	// maxConnections is the maximum number of concurrent connections; further ones are reset.
	maxConnections = 20_000
	// chunkBytes is the maximum number of bytes of one read.
	chunkBytes = 16 << 10
	// bufferBytes is the requested buffer size of each socket. It is small, so that bytes in flight wait in the parts'
	// buffers and not in the proxy.
	bufferBytes = 64 << 10
	dialTimeout = 5 * time.Second
)

// Proxy accepts connections and forwards them to its target. All methods may be called by several goroutines.
type Proxy struct {
	listener *net.TCPListener
	// running counts the goroutines of the proxy and its connections. closing ends the accepting goroutine.
	running sync.WaitGroup
	closing chan struct{}
	closed  sync.Once

	mu      sync.Mutex
	target  string
	weather Weather
	changed chan struct{} // closed when the weather changes
	links   map[*link]struct{}
	carried int // number of connections so far
}

// Listen starts a proxy for a target, host:port. The target need not listen yet. The caller closes the proxy.
func Listen(target string) (*Proxy, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listen before %s: %w", target, err)
	}
	p := &Proxy{target: target, listener: listener, closing: make(chan struct{}), changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr returns the address to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Aim changes the target of new connections, as an entry in DNS does.
func (p *Proxy) Aim(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *Proxy) aimed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// Set changes the weather, for existing connections as well as for new ones.
func (p *Proxy) Set(weather Weather) {
	p.mu.Lock()
	p.weather = weather
	close(p.changed)
	p.changed = make(chan struct{})
	var doomed []*link
	for l := range p.links {
		if (l.lost.up && !weather.Up.Lose) || (l.lost.down && !weather.Down.Lose) {
			doomed = append(doomed, l)
		}
	}
	p.mu.Unlock()
	for _, l := range doomed {
		l.reset()
	}
}

// Reset ends all connections with RST, like a machine that has forgotten them, whatever the weather. It returns their
// number.
func (p *Proxy) Reset() int { return p.end((*link).reset) }

// Hangup ends all connections with FIN, whatever the weather. It returns their number.
func (p *Proxy) Hangup() int { return p.end((*link).hangup) }

func (p *Proxy) end(each func(*link)) int {
	links := p.present()
	for _, l := range links {
		each(l)
	}
	return len(links)
}

func (p *Proxy) present() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	links := make([]*link, 0, len(p.links))
	for l := range p.links {
		links = append(links, l)
	}
	return links
}

// Connections returns the number of current connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Carried returns the number of connections so far.
func (p *Proxy) Carried() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.carried
}

// Close resets all connections, accepts no more, and waits for all goroutines. It may be called more than once.
func (p *Proxy) Close() {
	p.closed.Do(func() {
		close(p.closing)
		_ = p.listener.Close()
	})
	p.Reset()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.AcceptTCP()
		if err != nil {
			select {
			case <-p.closing:
				return
			case <-time.After(10 * time.Millisecond): // out of file descriptors; the next attempt may succeed
			}
			continue
		}
		l := newLink(p, conn)
		if !p.admit(l) {
			l.reset()
			continue
		}
		p.running.Go(l.carry)
	}
}

// admit counts a connection. It returns false if the connection must be refused.
func (p *Proxy) admit(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closing:
		return false
	default:
	}
	if p.weather.Refuse || len(p.links) >= maxConnections {
		return false
	}
	p.links[l] = struct{}{}
	p.carried++
	return true
}

func (p *Proxy) forget(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}
