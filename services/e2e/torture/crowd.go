package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnelhq/runnel/services/e2e/bench/load"
	"github.com/runnelhq/runnel/services/e2e/launch"
)

// crowd is a large number of listening clients, each in one conversation, over cheap connections. They connect to
// gateways that accept clients, and reconnect when they are asked to. Package load checks that each client receives its
// conversation completely and in order.
type crowd struct {
	loop     *load.Loop
	gateways []string // host:port

	clients       []*load.Client
	conversations []string

	mu sync.Mutex
	// random, taking and the following fields are guarded by mu: timers and the loop use them.
	random *rand.Rand
	taking []bool // whether each gateway accepts clients
	timers sync.WaitGroup
	ending bool
	open   int
	isOpen []bool // whether each client is connected
	// away and back are the times when clients were sent away and came back. They are recorded after all clients were
	// connected for the first time.
	gathered   bool
	away, back []int64
	dropped    int
	lastDrop   string
}

func newCrowd(suite *launch.Suite, seed uint64) (*crowd, error) {
	c := &crowd{random: rand.New(rand.NewPCG(seed, 7))}
	for _, url := range suite.URLs {
		host, _, _ := strings.Cut(strings.TrimPrefix(url, "ws://"), "/")
		c.gateways, c.taking = append(c.gateways, host), append(c.taking, true)
	}
	var err error
	c.loop, err = load.NewLoop(c)
	return c, err
}

// add adds a client to the crowd without connecting it.
func (c *crowd) add(client *load.Client) {
	client.Index = len(c.clients)
	c.clients, c.isOpen = append(c.clients, client), append(c.isOpen, false)
	if n := len(c.conversations); n == 0 || c.conversations[n-1] != client.Conversation {
		c.conversations = append(c.conversations, client.Conversation)
	}
}

// atOnce is the number of clients that connect at the same time at the beginning.
const atOnce = 256

// connect connects all clients, distributed over the gateways.
func (c *crowd) connect(ctx context.Context) error {
	for begun := 0; c.connected() < len(c.clients); {
		for begun < len(c.clients) && begun-c.connected() < atOnce {
			c.loop.Connect(c.clients[begun], c.gateways[begun%len(c.gateways)])
			begun++
		}
		if err := errors.Join(c.loop.Failures(), launch.Sleep(ctx, 5*time.Millisecond)); err != nil {
			return fmt.Errorf("%d of %d clients are connected: %w", c.connected(), len(c.clients), err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gathered, c.dropped = true, 0
	return nil
}

func (c *crowd) connected() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open
}

// leave and enter record that a gateway stops or starts accepting clients. A load balancer would know this from /readyz.
func (c *crowd) leave(gateway int) { c.set(gateway, false) }
func (c *crowd) enter(gateway int) { c.set(gateway, true) }

func (c *crowd) set(gateway int, taking bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taking[gateway] = taking
}

// Event implements load.Handler.
func (c *crowd) Event(*load.Client, uint64, []byte, int64) {}

// Outcome implements load.Handler. The crowd sends nothing, so there are no outcomes.
func (c *crowd) Outcome(*load.Client, int64, uint64, int64) {}

// Connected implements load.Handler.
func (c *crowd) Connected(client *load.Client, now int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open++
	c.isOpen[client.Index] = true
	if c.gathered {
		c.back = append(c.back, now)
	}
}

// goingAway is the beginning of the reason with which a gateway asks its clients to reconnect elsewhere: the close code.
const goingAway = "4000"

// Closed implements load.Handler: the client reconnects to another gateway.
func (c *crowd) Closed(client *load.Client, reason string, now int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	wasOpen := c.isOpen[client.Index]
	if wasOpen {
		c.isOpen[client.Index] = false
		c.open--
	}
	delay := time.Duration(c.random.Int64N(int64(awayDelay)))
	switch {
	case strings.HasPrefix(reason, goingAway):
		c.away = append(c.away, now)
	case wasOpen:
		c.dropped++
		c.lastDrop = client.User + ": " + reason
	}
	if c.ending {
		return nil
	}
	to := c.elsewhereLocked()
	c.timers.Add(1)
	time.AfterFunc(delay, func() {
		defer c.timers.Done()
		c.loop.Connect(client, to())
	})
	return nil
}

// elsewhereLocked returns a function that chooses, when it is called, a gateway that accepts clients.
func (c *crowd) elsewhereLocked() func() string {
	return func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		first := c.random.IntN(len(c.gateways))
		for n := range c.gateways {
			if at := (first + n) % len(c.gateways); c.taking[at] {
				return c.gateways[at]
			}
		}
		return c.gateways[first]
	}
}

// settle waits until all clients are connected and have all stored events.
func (c *crowd) settle(ctx context.Context, r *run) {
	begun := time.Now()
	heads, _, err := r.heads(ctx)
	if err != nil {
		r.record.Violated(violation("I9", "the database does not answer: %v", err))
		return
	}
	var missing string
	whole := until(ctx, func() bool {
		missing = ""
		c.loop.Do(func() {
			for _, client := range c.clients {
				if head := heads[client.Conversation]; client.Seq() != head || !client.Open() {
					missing = fmt.Sprintf("%s has events up to %d of %d, connected: %v", client.User, client.Seq(), head, client.Open())
					return
				}
			}
		})
		return missing == "" || c.loop.Failures() != nil
	})
	if !whole {
		r.record.Violated(violation("I9", "%v after the last gateway was replaced: %s", live, missing))
	}
	if err := c.loop.Failures(); err != nil {
		r.record.Violated(violation("I6", "the listeners: %v", err))
	}
	c.mu.Lock()
	dropped, last := c.dropped, c.lastDrop
	c.mu.Unlock()
	if dropped > 0 {
		r.record.Violated(violation("roll", "%d connections ended without being sent away, the last one: %s", dropped, last))
	}
	r.sayf("all %d clients have everything after %v", len(c.clients), time.Since(begun).Round(time.Millisecond))
}

// close ends all connections, timers and goroutines.
func (c *crowd) close() {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	c.timers.Wait()
	c.loop.Close()
}

// report adds the clients' observations to the report.
func (c *crowd) report(cfg RollConfig, report *RollReport) *RollReport {
	if report == nil {
		report = &RollReport{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	report.Clients, report.Gateways, report.DrainRate = cfg.Clients, cfg.Gateways, cfg.drainRate()
	report.SentAway, report.Dropped, report.Back = len(c.away), c.dropped, len(c.back)
	report.PeakAway, report.PeakBack = peak(c.away), peak(c.back)
	report.Repeats = c.loop.Repeats()
	return report
}

// peak returns the largest number of times within one second.
func peak(at []int64) (most int) {
	at = slices.Sorted(slices.Values(at))
	for first, last := 0, 0; last < len(at); last++ {
		for at[last]-at[first] >= int64(time.Second) {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}
