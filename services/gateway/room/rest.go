package room

import "time"

// Most rooms are quiet most of the time. A quiet room keeps its head and its subscriptions, nothing else: encodings go as soon as
// all clients have acknowledged the events, or stopped being sent any, and the events a little later. A client that returns to a quiet
// room is sent what it missed from history, which is read once for all clients that return at the same time.

const (
	// encodingsRest is how long encodings are kept for clients that have not acknowledged the events.
	encodingsRest = 5 * time.Second
	// eventsRest is how long events are kept for clients that return.
	eventsRest = 10 * time.Second
)

// usedLocked notes that events are being sent.
func (r *Room) usedLocked(now time.Time) { r.usedAt, r.encoded = now.UnixNano(), true }

// restLocked drops what a quiet room does not need.
func (r *Room) restLocked(now time.Time) {
	quiet := time.Duration(now.UnixNano() - r.usedAt)
	if r.encoded && (!r.awaiting || quiet >= encodingsRest) {
		for _, e := range r.recent {
			clear(e.frames[:])
		}
		r.encoded = false
	}
	if !r.awaiting && len(r.recent) > 0 && quiet >= eventsRest {
		r.dropLocked(len(r.recent))
		r.recent = nil
	}
}
