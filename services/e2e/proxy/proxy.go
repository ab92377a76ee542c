package proxy

import (
	"fmt"
	"net"
	"sync"
	"time"
)

// Flow is what happens to bytes in one direction. The zero value lets them pass.
type Flow struct {
	// Hold delays all bytes until it is over. It takes precedence over the other fields.
	Hold bool
	// Lose throws them away.
	Lose bool
	// Delay is how long bytes take. Later bytes wait with them, so the throughput is limited only by the buffers.
	Delay time.Duration
	// Rate is the most bytes per second of one connection; 0 for no limit.
	Rate int
}

// Weather is the state of the network. The zero value is a working network.
type Weather struct {
	// Up is the direction from the side that connects to the target, Down the other one.
	Up, Down Flow
	// Refuse resets new connections.
	Refuse bool
}

// Limits.
const (
	// maxConnections are carried at a time; more are reset.
	maxConnections = 20_000
	// chunkBytes is what one read takes at most.
	chunkBytes = 16 << 10
	// bufferBytes is the requested buffer size of each socket, so that bytes in flight are in the parts' buffers and not
	// here.
	bufferBytes = 64 << 10
	dialTimeout = 5 * time.Second
)

// Proxy accepts connections and forwards them to its target. All methods may be called by several goroutines.
type Proxy struct {
	target   string
	listener *net.TCPListener
	// running are the goroutines of the proxy and its connections; closing ends the first of them.
	running sync.WaitGroup
	closing chan struct{}
	closed  sync.Once

	mu      sync.Mutex
	weather Weather
	changed chan struct{} // closed when the weather changes
	links   map[*link]struct{}
	carried int // connections so far
}

// Listen starts a proxy for a target, host:port, which need not exist yet. Close it.
func Listen(target string) (*Proxy, error) {
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("listen before %s: %w", target, err)
	}
	p := &Proxy{target: target, listener: listener, closing: make(chan struct{}), changed: make(chan struct{}), links: map[*link]struct{}{}}
	p.running.Go(p.accept)
	return p, nil
}

// Addr is where to connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

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

// Reset ends all connections with RST, as a machine does that has lost them, whatever the weather, and returns how many
// there were.
func (p *Proxy) Reset() int { return p.end((*link).reset) }

// Hangup ends all connections with FIN, whatever the weather, and returns how many there were.
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

// Close resets all connections, takes no more, and waits for everything that was started. It may be called more than once.
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
			case <-time.After(10 * time.Millisecond): // out of file descriptors; the next one may succeed
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

// admit counts a connection, unless it must be refused.
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
