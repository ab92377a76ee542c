package room

import (
	"slices"

	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"
)

const (
	maxRecentEvents = 1024
	minRecentEvents = 16
)

// rememberLocked keeps new events in memory, as many as RecentBytes of the hub allows.
func (r *Room) rememberLocked(entries []*entry) {
	if r.closed {
		return
	}
	r.recent = append(r.recent, entries...)
	for _, e := range entries {
		r.growLocked(e.weight())
	}
	for i, e := range slices.Backward(entries) {
		if event := e.event; conversation.Erases(event.GetKind()) {
			// Subscriptions that still need older events read them from history, where the content is erased.
			r.erasedAt = ids.Seq(event.GetSeq())
			r.dropLocked(len(r.recent) - len(entries) + i)
			break
		}
	}
	r.trimLocked()
}

// dropLocked removes the oldest recent events.
func (r *Room) dropLocked(n int) {
	for _, e := range r.recent[:n] {
		r.growLocked(-e.weight())
	}
	clear(r.recent[:n]) // append releases the array when it outgrows it
	r.recent = r.recent[n:]
}

func (r *Room) growLocked(size int) {
	r.bytes += size
	r.hub.recentBytes.Add(int64(size))
}

func (r *Room) trimLocked() {
	for len(r.recent) > maxRecentEvents || (len(r.recent) > minRecentEvents && r.hub.recentBytes.Load() > int64(r.hub.cfg.RecentBytes)) {
		r.dropLocked(1)
	}
}

// prependLocked keeps events that directly precede the recent ones, so that the next client that resumes finds them in
// memory.
func (r *Room) prependLocked(entries []*entry) {
	end := 0
	for end < len(entries) && entries[end].seq() < r.firstRecentLocked() {
		end++
	}
	entries = entries[:end]
	if r.closed || !r.ready || end == 0 || entries[end-1].seq()+1 != r.firstRecentLocked() || len(r.recent)+end > maxRecentEvents {
		return
	}
	r.recent = append(entries[:end:end], r.recent...)
	for _, e := range entries {
		r.growLocked(e.weight())
	}
	r.trimLocked()
}

// firstRecentLocked returns the seq of the oldest event in memory; head + 1 when there is none.
func (r *Room) firstRecentLocked() ids.Seq {
	return r.head + 1 - ids.Seq(len(r.recent))
}
