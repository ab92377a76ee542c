package room

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/runnelhq/runnel/pkg/ids"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/services/gateway/backoff"
	"github.com/runnelhq/runnel/services/gateway/metrics"
	"github.com/runnelhq/runnel/services/gateway/page"
)

// pageEvents is the most events in one page of history.
const pageEvents = 500

// open makes the room ready at a head that was read after the subscription took effect, so no event can be missed in between. The
// head is nil if the conversation does not exist (any more).
func (r *Room) open(head *historyv1.Head) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ready {
		return
	}
	r.ready, r.head, r.headHash = true, ids.Seq(head.GetHead()), head.GetHeadHash()
	r.placeAllLocked()
	if r.seen > r.head {
		r.catchUpLocked()
	}
}

// hearLocked records that events up to a seq exist.
func (r *Room) hearLocked(seq ids.Seq) {
	r.seen = max(r.seen, seq)
	if r.ready && r.seen > r.head {
		r.catchUpLocked()
	}
}

// catchUpLocked reads missing events from history, on its own goroutine.
func (r *Room) catchUpLocked() {
	if first := max(r.head, r.missed) + 1; first <= r.seen {
		r.hub.cfg.Recorder.Room(gatewayv1.StepKind_STEP_KIND_MISSED, time.Now(), r.key, first, r.seen)
		r.missed = r.seen
	}
	if r.catching {
		return
	}
	r.catching = true
	r.hub.workers.Go(r.catchUp)
}

func (r *Room) catchUp() {
	h := r.hub
	for wait := time.Duration(0); h.ctx.Err() == nil; {
		r.mu.Lock()
		after, heard := r.head, r.seen
		r.mu.Unlock()
		read, err := h.read(metrics.ReadGap, &historyv1.ReadRequest{ConversationId: string(r.id), After: uint64(after), Limit: pageEvents})
		if err == nil {
			err = page.CheckRising(r.id, read, after)
		}
		if err != nil {
			h.ReadFailed(err, "a gap could not be filled yet", "conversation", r.id, "after", after)
			wait = backoff.Wait(h.ctx.Done(), wait)
			if r.empty() {
				break
			}
			continue
		}
		var dirty []Sender
		r.mu.Lock()
		r.takePageLocked(newEntries(read.GetEvents()), &dirty)
		r.missLocked(after, heard, ids.Seq(read.GetHead()))
		done := !r.ready || r.head >= r.seen || len(r.subscriptions) == 0
		if done {
			r.catching = false
		}
		r.mu.Unlock()
		flushAll(dirty)
		if done {
			return
		}
		if !read.GetMore() {
			wait = backoff.Wait(h.ctx.Done(), wait)
		}
	}
	r.mu.Lock()
	r.catching = false
	r.mu.Unlock()
}

// missLocked compares what the room had taken and heard of, before the store was read, with the store's head. The room hears of
// an event only after it was committed, so an event that the store does not have was lost.
func (r *Room) missLocked(taken, heard, head ids.Seq) {
	switch {
	case !r.ready || r.head < taken: // the room was reloaded meanwhile
	case head < taken:
		r.reloadLocked()
	case head < heard && head == r.head:
		r.seen = r.head
		r.placeAllLocked()
	}
}

// takePageLocked takes the events of a page that are beyond the head.
func (r *Room) takePageLocked(entries []*entry, dirty *[]Sender) {
	for len(entries) > 0 && entries[0].seq() <= r.head {
		entries = entries[1:]
	}
	if !r.ready || len(entries) == 0 || entries[0].seq() != r.head+1 {
		return
	}
	if !chained(r.headHash, entries) {
		r.reloadLocked()
		return
	}
	first, last := entries[0].seq(), entries[len(entries)-1].seq()
	r.hub.cfg.Metrics.GapEvents.Add(float64(len(entries)))
	r.hub.cfg.Recorder.Room(gatewayv1.StepKind_STEP_KIND_GAP_FILLED, time.Now(), r.key, first, last)
	r.advanceLocked(entries, dirty)
}

func (r *Room) empty() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.subscriptions) == 0
}

// errReloaded means that a room was reloaded while its events were being read.
var errReloaded = errors.New("the log of the conversation differs from the one that was sent to clients")

// load reads the events after a seq once for all subscriptions in the room that need them now.
func (r *Room) load(after ids.Seq) ([]*entry, error) {
	loaded, err, _ := r.loads.Do(strconv.FormatUint(uint64(after), 10), func() (any, error) {
		read, err := r.hub.read(metrics.ReadBehind, &historyv1.ReadRequest{ConversationId: string(r.id), After: uint64(after), Limit: pageEvents})
		if err != nil {
			return nil, err
		}
		if err := page.CheckRising(r.id, read, after); err != nil {
			return nil, err
		}
		if len(read.GetEvents()) == 0 {
			return nil, &page.HoleError{ConversationID: r.id, Seq: after + 1}
		}
		entries := newEntries(read.GetEvents())
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ready && r.differsLocked(entries) {
			r.reloadLocked()
			return nil, errReloaded
		}
		if ids.Seq(read.GetHead()) >= r.erasedAt { // otherwise they may contain content that was erased meanwhile
			r.prependLocked(entries)
		}
		return entries, nil
	})
	if err != nil {
		return nil, err
	}
	entries, _ := loaded.([]*entry) // load returns no other type
	return entries, nil
}

// chained reports whether entries are contiguous, each with the hash of the one before it, and the first with prev. An empty
// prev is not known and fits everything.
func chained(prev []byte, entries []*entry) bool {
	for i, e := range entries {
		if i > 0 && e.seq() != entries[i-1].seq()+1 {
			return false
		}
		if len(prev) > 0 && !bytes.Equal(prev, e.event.GetPrevHash()) {
			return false
		}
		prev = e.event.GetHash()
	}
	return true
}

// read reads a page of a conversation.
func (h *Hub) read(purpose metrics.ReadPurpose, request *historyv1.ReadRequest) (*historyv1.ReadResponse, error) {
	h.cfg.Metrics.Reads[purpose].Inc()
	ctx, cancel := context.WithTimeout(h.ctx, h.cfg.HistoryTimeout)
	defer cancel()
	return h.cfg.Log.Read(ctx, request)
}

// ReadFailed logs why something could not be read from the store. A hole in a log is worse than an outage: it does not go away
// by itself.
func (h *Hub) ReadFailed(err error, message string, args ...any) {
	args = append(args, "error", err)
	// The store refuses a page that would begin behind a missing event; others end before it, or lack it.
	if _, missing := errors.AsType[*page.HoleError](err); missing || status.Code(err) == codes.DataLoss {
		h.cfg.Metrics.Holes.Inc()
		h.cfg.Logger.Error(message, args...)
		return
	}
	h.cfg.Logger.Warn(message, args...)
}
