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

// pageEvents is the maximum number of events in one page of history.
const pageEvents = 500

// open makes the room ready. The head must have been read after the subscription took effect, so that no event in between
// is missed. head is nil if the conversation does not exist (any more).
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

// catchUpLocked starts a goroutine that reads missing events from history.
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
	refused := map[ids.User]bool{} // users to whom the store does not show the event after the head
	for wait := time.Duration(0); h.ctx.Err() == nil; {
		done, more, err := r.catchUpOnce(refused)
		switch {
		case done:
			return
		case err != nil:
			wait = backoff.Wait(h.ctx.Done(), wait)
			if r.empty() {
				r.mu.Lock()
				r.catching = false
				r.mu.Unlock()
				return
			}
		case !more:
			wait = backoff.Wait(h.ctx.Done(), wait)
		}
	}
	r.mu.Lock()
	r.catching = false
	r.mu.Unlock()
}

// catchUpOnce reads one page. done means that no event is missing any more; more means that the next page can be read at
// once.
func (r *Room) catchUpOnce(refused map[ids.User]bool) (done, more bool, err error) {
	r.mu.Lock()
	after, heard := r.head, r.seen
	viewer := r.viewerLocked(after, refused)
	if viewer == nil {
		defer r.mu.Unlock()
		return r.unseenLocked(refused)
	}
	user, from := viewer.to.User, viewer.from
	r.mu.Unlock()
	read, err := r.readAs(user, metrics.ReadGap, after)
	switch {
	case errors.Is(err, errUnseen) && ids.Seq(read.GetHead()) >= from && ids.Seq(read.GetHead()) <= after:
		refused[user] = true // the membership has ended; the event that ended it will tell the subscription
		return false, true, nil
	case errors.Is(err, errUnseen):
		r.mu.Lock()
		defer r.mu.Unlock()
		r.reloadLocked() // the store listed the membership, so it now has another log
		return r.caughtUpAllLocked(), false, nil
	case err != nil:
		r.hub.ReadFailed(err, "a gap could not be filled yet", "conversation", r.id, "after", after)
		return false, false, err
	}
	clear(refused)
	var dirty []Sender
	r.mu.Lock()
	r.takePageLocked(newEntries(read.GetEvents()), &dirty)
	if read.GetMember() { // the store tells only members the length of the log
		r.missLocked(after, heard, ids.Seq(read.GetHead()))
	}
	done = r.caughtUpAllLocked()
	r.mu.Unlock()
	flushAll(dirty)
	return done, read.GetMore() || !read.GetMember(), nil
}

// unseenLocked handles a log in which no user in the room may see the event after the head.
func (r *Room) unseenLocked(refused map[ids.User]bool) (done, more bool, err error) {
	switch {
	case r.caughtUpAllLocked():
		return true, false, nil
	case r.passOverLocked():
		return r.caughtUpAllLocked(), true, nil
	default:
		clear(refused)
		return false, false, errUnseen // all users are about to leave the room
	}
}

// caughtUpAllLocked ends the reading from history if no event is missing any more.
func (r *Room) caughtUpAllLocked() bool {
	done := !r.ready || r.head >= r.seen || len(r.subscriptions) == 0
	if done {
		r.catching = false
	}
	return done
}

// missLocked handles events that the store has lost. taken and heard are the newest events that the room had taken and
// heard of before the store was read; head is the store's head. The room hears of an event only after its commit, so the
// store must have it.
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

// load reads the events after a seq. Subscriptions that need the same events at the same time share one read. It returns
// errUnseen if the store does not show the events to the user.
func (r *Room) load(after ids.Seq, viewer ids.User) ([]*entry, error) {
	key := strconv.FormatUint(uint64(after), 10)
	entries, reader, err := r.loadAs(key, after, viewer)
	if errors.Is(err, errUnseen) && reader != viewer { // the read was shared with another user, who may not see the events
		entries, _, err = r.loadAs(key+" "+string(viewer), after, viewer)
	}
	return entries, err
}

// loadAs reads the events after a seq, or shares a read of the same key that is under way. reader is the user in whose
// name the events were read.
func (r *Room) loadAs(key string, after ids.Seq, viewer ids.User) (entries []*entry, reader ids.User, err error) {
	type loaded struct {
		entries []*entry
		reader  ids.User
	}
	result, err, _ := r.loads.Do(key, func() (any, error) {
		read, err := r.readAs(viewer, metrics.ReadBehind, after)
		if err != nil {
			return loaded{reader: viewer}, err
		}
		if len(read.GetEvents()) == 0 {
			return loaded{reader: viewer}, &page.HoleError{ConversationID: r.id, Seq: after + 1}
		}
		entries := newEntries(read.GetEvents())
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.ready && r.differsLocked(entries) {
			r.reloadLocked()
			return loaded{reader: viewer}, errReloaded
		}
		if ids.Seq(read.GetHead()) >= r.erasedAt { // otherwise the entries may contain content that was erased meanwhile
			r.prependLocked(entries)
		}
		return loaded{entries, viewer}, nil
	})
	page, _ := result.(loaded) // the type of the result is always loaded
	return page.entries, page.reader, err
}

// chained reports whether entries are contiguous and each contains the hash of the entry before it; the first must
// contain prev. An empty prev is unknown and matches every hash.
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

// ReadFailed logs why a read from the store failed. A hole in a log is logged as more serious than an outage: it does not
// go away by itself.
func (h *Hub) ReadFailed(err error, message string, args ...any) {
	args = append(args, "error", err)
	// The store returns DataLoss for a page that would begin behind a missing event. Other pages end before the missing
	// event, or lack it.
	if _, missing := errors.AsType[*page.HoleError](err); missing || status.Code(err) == codes.DataLoss {
		h.cfg.Metrics.Holes.Inc()
		h.cfg.Logger.Error(message, args...)
		return
	}
	h.cfg.Logger.Warn(message, args...)
}
