package room

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/runnelhq/runnel/services/gateway/backoff"
)

// opening bundles the opening of new rooms: while heads are read from history, the rooms that are created meanwhile wait for the next
// read. Many conversations that are created at once cause few reads.
type opening struct {
	mu      sync.Mutex
	running bool
	waiting []*Room
}

// maxOpening limits the rooms that one call opens.
const maxOpening = 10 * headsPerCall

// add adds rooms. It reports whether the caller must open them; otherwise another goroutine does.
func (o *opening) add(rooms []*Room) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = append(o.waiting, rooms...)
	if o.running {
		return false
	}
	o.running = true
	return true
}

// next returns the rooms to open now. If there are none, the caller's work is done.
func (o *opening) next() []*Room {
	o.mu.Lock()
	defer o.mu.Unlock()
	rooms := o.waiting[:min(len(o.waiting), maxOpening)]
	o.waiting = o.waiting[len(rooms):]
	o.running = len(rooms) > 0
	if !o.running {
		o.waiting = nil
	}
	return rooms
}

// open reads the heads of new rooms once their subscriptions are in effect. The caller waits for the first read only.
func (h *Hub) open(fresh []*Room) {
	if !h.opening.add(fresh) {
		return
	}
	h.openNow(h.opening.next())
	if rooms := h.opening.next(); len(rooms) > 0 {
		h.workers.Go(func() {
			for ; len(rooms) > 0; rooms = h.opening.next() {
				h.openNow(rooms)
			}
		})
	}
}

// openNow opens rooms. If that fails, it is repeated on a goroutine of its own, so that other rooms do not wait for these.
func (h *Hub) openNow(rooms []*Room) {
	if h.openOnce(rooms) == nil {
		return
	}
	h.workers.Go(func() {
		for wait := time.Duration(0); h.ctx.Err() == nil; {
			wait = backoff.Wait(h.ctx.Done(), wait)
			rooms = slices.DeleteFunc(slices.Clone(rooms), (*Room).isReady)
			err := h.openOnce(rooms)
			if err == nil {
				return
			}
			h.cfg.Logger.Warn("could not open new conversations; trying again", "conversations", len(rooms), "error", err)
		}
	})
}

func (h *Hub) openOnce(fresh []*Room) error {
	ctx, cancel := context.WithTimeout(h.ctx, h.cfg.HistoryTimeout)
	defer cancel()
	if err := h.cfg.Bus.Flush(ctx); err != nil {
		return fmt.Errorf("wait for subscriptions: %w", err)
	}
	return h.readHeads(h.ctx, fresh, (*Room).open)
}

// isReady reports whether the room knows its head.
func (r *Room) isReady() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}
