package flight

import (
	"sync"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
)

// ClosedLog remembers the last connections that ended, for explaining. Its memory is bounded: it holds a fixed number, each
// with where it stood in a few conversations at most.
type ClosedLog struct {
	mu    sync.Mutex
	ring  []Closed
	next  int
	since time.Time // nothing that ended after this is forgotten
}

// Closed is a connection that has ended.
type Closed struct {
	User, Device, ConnectionID string
	// Number stands for the connection in the recorder.
	Number             uint32
	OpenedAt, ClosedAt time.Time
	Code               errcode.CloseCode
	// Standings are where the connection had not acknowledged everything, in a few conversations at most.
	Standings []*gatewayv1.Standing
}

const (
	// MaxClosedStandings bounds the standings that are remembered of one connection.
	MaxClosedStandings = 8
	// stepsPerClosed is how many steps there are room for in the recorder for each ended connection that is remembered. One
	// takes about 300 bytes, 1.5 KiB at most: with the defaults 1,365 of them take 400 KiB as a rule and never more than
	// 2 MiB, which makes 8 MiB with the steps.
	stepsPerClosed = 144
)

// NewClosedLog makes a log whose size fits a recorder of so many entries.
func NewClosedLog(entries int) *ClosedLog {
	return &ClosedLog{ring: make([]Closed, 0, entries/stepsPerClosed), since: time.Now()}
}

// Add remembers a connection, and forgets the oldest when there is no room.
func (l *ClosedLog) Add(one Closed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case cap(l.ring) == 0:
		l.since = one.ClosedAt
	case len(l.ring) < cap(l.ring):
		l.ring = append(l.ring, one)
	default:
		l.since = l.ring[l.next].ClosedAt
		l.ring[l.next] = one
		l.next = (l.next + 1) % len(l.ring)
	}
}

// Of returns the remembered connections of a user, in the order in which they ended, and since when all are remembered.
func (l *ClosedLog) Of(userID string) (found []Closed, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ring {
		if one := &l.ring[(l.next+i)%len(l.ring)]; one.User == userID {
			found = append(found, *one)
		}
	}
	return found, l.since
}
