package flight

import (
	"sync"
	"time"

	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"

	"github.com/runnelhq/runnel/pkg/errcode"
	"github.com/runnelhq/runnel/pkg/ids"
)

// ClosedLog keeps the connections that ended most recently, for Explain. Its memory is bounded: it holds a fixed number of
// connections, each with its position in a few conversations at most.
type ClosedLog struct {
	mu    sync.Mutex
	ring  []Closed
	next  int
	since time.Time // every connection that ended after this time is still in the log
}

// Closed is a connection that has ended.
type Closed struct {
	User         ids.User
	Device       ids.Device
	ConnectionID ids.Connection
	// Number identifies the connection in the recorder.
	Number             uint32
	OpenedAt, ClosedAt time.Time
	Code               errcode.CloseCode
	// Standings are the positions in conversations where the connection had not acknowledged every event, at most
	// MaxClosedStandings.
	Standings []*gatewayv1.Standing
}

const (
	// MaxClosedStandings limits the standings that are kept of one connection.
	MaxClosedStandings = 8
	// stepsPerClosed is the number of recorder entries per ended connection that the log can hold. An ended connection
	// usually takes about 300 bytes, and at most 1.5 KiB. With the defaults, 1,365 connections usually take 400 KiB and
	// never more than 2 MiB, or 8 MiB together with the steps.
	stepsPerClosed = 144
)

// NewClosedLog makes a log whose size fits a recorder with this number of entries.
func NewClosedLog(entries int) *ClosedLog {
	return &ClosedLog{ring: make([]Closed, 0, entries/stepsPerClosed), since: time.Now()}
}

// Add adds a connection, and removes the oldest if there is no room.
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

// Of returns the ended connections of a user that are still in the log, in the order in which they ended. All that ended
// after since are included.
func (l *ClosedLog) Of(userID ids.User) (found []Closed, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.ring {
		if one := &l.ring[(l.next+i)%len(l.ring)]; one.User == userID {
			found = append(found, *one)
		}
	}
	return found, l.since
}
