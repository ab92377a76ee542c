package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"

	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// hub holds the rooms. Messages of live subjects come in through a few lanes, a conversation always through the same, and
// each lane is worked off by one goroutine. A worker takes all that waits before it writes: when it is behind, many events
// go to a connection in one write; when it is not, the one there is goes at once.
type hub struct {
	gw          *Gateway
	lanes       []lane
	recentBytes atomic.Int64

	mu    sync.Mutex
	rooms map[string]*room
}

// lane is the way of the events of some conversations, and of the outcomes that their senders wait for: an outcome goes
// out in one write with the event it belongs to, when both are there.
type lane struct {
	live    chan *nats.Msg
	replies chan *conn
}

const (
	laneCapacity = 16384
	// laneDrain and laneDrainBytes bound what a worker takes before it writes: more would fill send queues though nobody
	// is slow.
	laneDrain      = 256
	laneDrainBytes = 64 << 10
	// headsPerCall is how many conversations one call of history compares.
	headsPerCall = 500
)

func newHub(gw *Gateway) *hub {
	h := &hub{gw: gw, rooms: map[string]*room{}, lanes: make([]lane, runtime.GOMAXPROCS(0))}
	for i := range h.lanes {
		h.lanes[i] = lane{live: make(chan *nats.Msg, laneCapacity), replies: make(chan *conn, laneCapacity)}
	}
	return h
}

// work delivers what comes in through one lane until ctx ends.
func (h *hub) work(ctx context.Context, l *lane) {
	var dirty []*conn
	for {
		size := 0
		select {
		case <-ctx.Done():
			return
		case msg := <-l.live:
			size = len(msg.Data)
			h.take(msg, &dirty)
		case c := <-l.replies:
			dirty = append(dirty, c)
		}
		for n := 1; n < laneDrain && size < laneDrainBytes && len(l.live) > 0; n++ {
			msg := <-l.live
			size += len(msg.Data)
			h.take(msg, &dirty)
		}
		for n := 0; n < laneDrain && len(l.replies) > 0; n++ {
			dirty = append(dirty, <-l.replies)
		}
		flushAll(dirty)
		clear(dirty)
		dirty = dirty[:0]
	}
}

// laneOf is the lane of a conversation; always the same, or its events would overtake each other.
func (h *hub) laneOf(conversationID string) *lane {
	return &h.lanes[conversation.Partition(conversationID, len(h.lanes))]
}

// flushSoon has what was queued to a connection written together with what the conversation's lane has for it.
func (h *hub) flushSoon(conversationID string, c *conn) {
	select {
	case h.laneOf(conversationID).replies <- c:
	default:
		c.flush() // the lane is far behind
	}
}

func (h *hub) take(msg *nats.Msg, dirty *[]*conn) {
	var live brokerv1.Live
	if err := live.UnmarshalVT(msg.Data); err != nil {
		h.gw.log.Error("a live message cannot be decoded", "subject", msg.Subject, "error", err)
		return
	}
	h.mu.Lock()
	r := h.rooms[broker.ConversationOf(msg.Subject)]
	h.mu.Unlock()
	if r == nil {
		return // everybody left meanwhile
	}
	traces := h.gw.trace.FanOut(h.gw.ctx, &live)
	entries := newEntries(live.GetEvents())
	for i, t := range traces {
		entries[i].trace = t
	}
	r.live(&live, entries, dirty)
	if live.GetReceipt() != nil {
		r.takeReceipt(live.GetReceipt(), dirty)
	}
	for _, t := range traces {
		if t != nil {
			t.End(0) // it was a repeat, or came before one that is missing
		}
	}
}

// flushAll writes what was queued to connections. Many of them are shared among the processors: the writes are system
// calls of a few microseconds each, and one after the other the last reader of a large room would wait for all before it.
func flushAll(dirty []*conn) {
	const worthSharing = 64
	if len(dirty) < worthSharing {
		for _, c := range dirty {
			c.flush()
		}
		return
	}
	var group errgroup.Group
	for part := range slices.Chunk(dirty, (len(dirty)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			for _, c := range part {
				c.flush()
			}
			return nil
		})
	}
	_ = group.Wait() // the parts return no errors
}

// enter takes seats in rooms, making those that are not there yet. The seats and summaries name the same conversations.
func (h *hub) enter(seats map[string]*seat, summaries []*historyv1.Summary) {
	var fresh []*room
	for _, summary := range summaries {
		s := seats[summary.GetConversationId()]
		h.mu.Lock()
		r := h.rooms[summary.GetConversationId()]
		if r == nil {
			r = &room{hub: h, id: summary.GetConversationId(), key: h.gw.recorder.KeyOf(summary.GetConversationId())}
			if err := h.subscribe(r); err != nil {
				// Only a closed connection refuses subscriptions: the gateway is stopping.
				h.mu.Unlock()
				h.gw.log.Warn("a conversation cannot be listened to", "error", err)
				return
			}
			h.rooms[r.id] = r
			h.gw.metrics.Rooms.Set(float64(len(h.rooms)))
			fresh = append(fresh, r)
		}
		r.mu.Lock()
		h.mu.Unlock()
		s.room.Store(r)
		r.seats = append(r.seats, s)
		r.welcome(s, summary.GetHead())
		r.mu.Unlock()
	}
	if len(fresh) > 0 {
		h.open(fresh)
	}
}

// welcome begins with a new seat. listed is the head in the list of conversations that the seat comes from. Callers hold mu.
func (r *room) welcome(s *seat, listed uint64) {
	head := r.head
	r.hear(listed)
	switch {
	case !r.ready: // it will look at all its seats
	case listed < head:
		r.doubt() // it took more since the list was read, or the store went back
		r.place(s)
	default:
		r.place(s)
	}
}

func (h *hub) subscribe(r *room) error {
	sub, err := h.gw.nats.ChanSubscribe(broker.LiveSubject(r.id), h.laneOf(r.id).live)
	if err != nil {
		return fmt.Errorf("subscribe to conversation %s: %w", r.id, err)
	}
	r.sub = sub
	return nil
}

// open reads the heads of new rooms once their subscriptions are in effect, and tries until it has them.
func (h *hub) open(fresh []*room) {
	if h.openOnce(fresh) == nil {
		return
	}
	h.gw.workers.Go(func() {
		for wait := 50 * time.Millisecond; h.gw.ctx.Err() == nil; wait = min(2*wait, 2*time.Second) {
			pause(h.gw.ctx.Done(), wait/2+rand.N(wait/2+1))
			err := h.openOnce(fresh)
			if err == nil {
				return
			}
			h.gw.log.Warn("new conversations cannot be followed yet", "conversations", len(fresh), "error", err)
		}
	})
}

func (h *hub) openOnce(fresh []*room) error {
	ctx, cancel := context.WithTimeout(h.gw.ctx, h.gw.cfg.HistoryTimeout)
	defer cancel()
	if err := h.gw.nats.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("wait for subscriptions: %w", err)
	}
	return h.readHeads(ctx, fresh, (*room).open)
}

// metrics.ReadHeads asks history where rooms stand and tells each of them: nil when the conversation does not exist.
func (h *hub) readHeads(ctx context.Context, rooms []*room, tell func(*room, *historyv1.Head)) error {
	for part := range slices.Chunk(rooms, headsPerCall) {
		ids := make([]string, len(part))
		for i, r := range part {
			ids[i] = r.id
		}
		h.gw.metrics.Reads[metrics.ReadHeads].Inc()
		heads, err := h.gw.history.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: ids})
		if err != nil {
			return fmt.Errorf("read heads: %w", err)
		}
		byID := make(map[string]*historyv1.Head, len(part))
		for _, head := range heads.GetHeads() {
			byID[head.GetConversationId()] = head
		}
		for _, r := range part {
			tell(r, byID[r.id])
		}
	}
	return nil
}

// leave gives a seat up; the last one closes the room.
func (h *hub) leave(s *seat) {
	r := s.room.Load()
	if r == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	s.followed.Abandon("the connection ended")
	if i := slices.Index(r.seats, s); i >= 0 {
		last := len(r.seats) - 1
		r.seats[i], r.seats[last] = r.seats[last], nil
		r.seats = r.seats[:last]
	}
	h.closeLocked(r)
}

// closeEmpty closes a room whose last member left the conversation rather than the gateway.
func (h *hub) closeEmpty(r *room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	h.closeLocked(r)
}

// closeLocked closes a room without seats. Callers hold the hub's mu and the room's.
func (h *hub) closeLocked(r *room) {
	if len(r.seats) > 0 || h.rooms[r.id] != r {
		return
	}
	r.closed = true
	delete(h.rooms, r.id)
	h.gw.metrics.Rooms.Set(float64(len(h.rooms)))
	_ = r.sub.Unsubscribe() // fails only when the connection is closed, which ends it as well
	r.grow(-r.bytes)
	r.recent = nil
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rooms)
}

func (h *hub) all() []*room {
	h.mu.Lock()
	defer h.mu.Unlock()
	rooms := make([]*room, 0, len(h.rooms))
	for _, r := range h.rooms {
		rooms = append(rooms, r)
	}
	return rooms
}

// compare asks history for the heads of all rooms, so that the loss of the last live message of a conversation is noticed, and
// a store that went back.
func (h *hub) compare(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, h.gw.cfg.Heartbeat)
	defer cancel()
	if err := h.compareRooms(ctx, h.all()); err != nil && ctx.Err() == nil {
		h.gw.log.Warn("heads could not be compared", "error", err)
	}
}

func (h *hub) compareRooms(ctx context.Context, rooms []*room) error {
	for part := range slices.Chunk(rooms, headsPerCall) {
		before := make(map[*room]standpoint, len(part)) // what was taken by then is in the store, or it went back
		for _, r := range part {
			before[r] = r.standpoint()
		}
		if err := h.readHeads(ctx, part, func(r *room, head *historyv1.Head) { r.compare(before[r], head) }); err != nil {
			return err
		}
	}
	return nil
}
