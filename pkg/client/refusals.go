package client

import (
	"slices"
	"time"
)

const (
	// How long the client remembers a refused command id; the server remembers it for the same time.
	refusedFor = 10 * time.Minute
	// Maximum number of remembered command ids.
	maxRefused = 1000
)

// attemptRecord records a command id that left the outbox without a commit.
type attemptRecord struct {
	// attempt is the number of refusals that were received.
	attempt uint32
	// unconfirmed means that the outcome of a copy is not known.
	unconfirmed bool
	at          time.Time
}

// refusals remembers command ids, so that a repeated command can report how often it was refused. The oldest ids are
// forgotten first.
type refusals struct {
	byID  map[commandKey]attemptRecord
	order []commandKey
}

// commandKey identifies a command; the sender is always the user.
type commandKey struct{ conversationID, commandID string }

// keep remembers a command. If the command is already remembered, its time starts again.
func (r *refusals) keep(key commandKey, p attemptRecord) {
	if r.byID == nil {
		r.byID = map[commandKey]attemptRecord{}
	}
	r.forget(key)
	r.byID[key] = p
	r.order = append(r.order, key)
	for len(r.order) > maxRefused || p.at.Sub(r.byID[r.order[0]].at) >= refusedFor {
		r.forget(r.order[0])
	}
}

// find returns the record of a command id.
func (r *refusals) find(key commandKey, now time.Time) attemptRecord {
	if p, known := r.byID[key]; known && now.Sub(p.at) < refusedFor {
		return p
	}
	return attemptRecord{}
}

func (r *refusals) forget(key commandKey) {
	if _, known := r.byID[key]; known {
		delete(r.byID, key)
		r.order = slices.Delete(r.order, slices.Index(r.order, key), slices.Index(r.order, key)+1)
	}
}
