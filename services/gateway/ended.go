package gateway

import (
	"sync"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// endings remembers the last connections that ended, for explaining. Its memory is bounded: it holds a fixed number, each
// with where it stood in a few conversations at most.
type endings struct {
	mu    sync.Mutex
	ring  []ended
	next  int
	since time.Time // nothing that ended after this is forgotten
}

// ended is a connection that is gone.
type ended struct {
	user, device, id string
	number           uint32
	opened, closed   time.Time
	code             errcode.CloseCode
	// standings are where the connection had not acknowledged everything, in a few conversations at most.
	standings []*gatewayv1.Standing
}

const (
	// maxLeftStandings bounds the standings that are remembered of one connection.
	maxLeftStandings = 8
	// stepsPerEnding is how many steps there are room for in the recorder for each ended connection that is remembered. An
	// ending takes about 300 bytes, 1.5 KiB at most: with the defaults 1,365 of them take 400 KiB as a rule and never more than
	// 2 MiB, which makes 8 MiB with the steps.
	stepsPerEnding = 144
)

func newEndings(entries int) *endings {
	return &endings{ring: make([]ended, 0, entries/stepsPerEnding), since: time.Now()}
}

func (e *endings) add(one ended) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case cap(e.ring) == 0:
		e.since = one.closed
	case len(e.ring) < cap(e.ring):
		e.ring = append(e.ring, one)
	default:
		e.since = e.ring[e.next].closed
		e.ring[e.next] = one
		e.next = (e.next + 1) % len(e.ring)
	}
}

// of gives the remembered connections of a user, in the order in which they ended, and since when all are remembered.
func (e *endings) of(userID string) (found []ended, since time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range e.ring {
		if one := &e.ring[(e.next+i)%len(e.ring)]; one.user == userID {
			found = append(found, *one)
		}
	}
	return found, e.since
}

// leftStandings are the conversations in which a connection that ends had not acknowledged everything.
func leftStandings(seats map[string]*seat) (left []*gatewayv1.Standing) {
	for _, s := range seats {
		r := s.room.Load()
		if r == nil {
			continue
		}
		r.mu.Lock()
		if s.acked < r.head {
			left = append(left, s.standing(r))
		}
		r.mu.Unlock()
		if len(left) == maxLeftStandings {
			break
		}
	}
	return left
}
