package room

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	brokerv1 "github.com/runnelhq/runnel/proto/runnel/broker/v1"
	historyv1 "github.com/runnelhq/runnel/proto/runnel/history/v1"

	"github.com/runnelhq/runnel/pkg/broker"
	"github.com/runnelhq/runnel/pkg/conversation"
	"github.com/runnelhq/runnel/pkg/ids"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// Log is the part of the history service that rooms read.
type Log interface {
	Heads(ctx context.Context, request *historyv1.HeadsRequest, options ...grpc.CallOption) (*historyv1.HeadsResponse, error)
	Read(ctx context.Context, request *historyv1.ReadRequest, options ...grpc.CallOption) (*historyv1.ReadResponse, error)
}

// Bus is the source of live messages.
type Bus interface {
	// Subscribe starts delivering the live messages of a conversation to to. It takes effect some time after the call, see
	// Flush. It fails only if the bus is closed.
	Subscribe(conversationID ids.Conversation, to chan *nats.Msg) (Unsubscriber, error)
	// Flush returns when all subscriptions are in effect.
	Flush(ctx context.Context) error
}

// Unsubscriber ends a subscription of the bus.
type Unsubscriber interface{ Unsubscribe() error }

// Config is what a Hub works with. All fields are required.
type Config struct {
	Log      Log
	Bus      Bus
	Logger   *slog.Logger
	Metrics  *metrics.Metrics
	Recorder *flight.Recorder
	Tracer   *flight.Tracer
	// Joined is called when an event begins a user's membership. The room's lock is held, so Joined must not block and
	// must not call a room. committed is when a worker received the answer to the event's commit; zero if that is not
	// known.
	Joined func(userID ids.User, conversationID ids.Conversation, seq ids.Seq, committed time.Time)

	SendQueueBytes int           // limit of the bytes that are queued for one client
	RecentBytes    int           // limit of recent events of all conversations, in bytes
	AckTimeout     time.Duration // time until an unacknowledged event is sent again; doubles with each repeat
	AckTries       int           // number of times that an event is sent again before the link is closed
	HistoryTimeout time.Duration // time limit of one call of history
}

// Hub holds the rooms. Live messages arrive through a few shards; each conversation always uses the same shard. One
// goroutine serves each shard. It takes all waiting messages before it writes. If it is behind, many events go to a link
// in one write; otherwise each event is sent at once.
type Hub struct {
	cfg         Config
	ctx         context.Context //nolint:containedctx // the lifetime of the hub: callbacks that start reads have no context
	shards      []shard
	recentBytes atomic.Int64
	workers     sync.WaitGroup

	opening opening

	mu    sync.Mutex
	rooms map[ids.Conversation]*Room
}

// shard carries the events of some conversations, and the outcomes for the senders of commands. An outcome and its
// event are sent in one write: see held.go.
type shard struct {
	live    chan *nats.Msg
	replies chan Sender
	held    held
}

const (
	shardCapacity = 16384
	// shardDrain and shardDrainBytes limit how much a shard takes before it writes. A larger amount would fill the send
	// queues of clients that are not slow.
	shardDrain      = 256
	shardDrainBytes = 64 << 10
	// headsPerCall is the number of conversations that one call of history compares.
	headsPerCall = 500
)

// NewHub makes a hub; start it with Run. Its reads of history are cancelled when ctx ends.
func NewHub(ctx context.Context, cfg Config) *Hub {
	h := &Hub{cfg: cfg, ctx: ctx, rooms: map[ids.Conversation]*Room{}, shards: make([]shard, runtime.GOMAXPROCS(0))}
	for i := range h.shards {
		h.shards[i].live, h.shards[i].replies = make(chan *nats.Msg, shardCapacity), make(chan Sender, shardCapacity)
		h.shards[i].held.init()
	}
	return h
}

// Run distributes live messages until ctx ends. Call Wait afterwards.
func (h *Hub) Run(ctx context.Context) {
	var shards sync.WaitGroup
	for i := range h.shards {
		shards.Go(func() { h.work(ctx, &h.shards[i]) })
	}
	shards.Wait()
}

// Wait waits for the reads that rooms started. They end when the hub's context ends.
func (h *Hub) Wait() { h.workers.Wait() }

// work distributes the messages of one shard until ctx ends.
func (h *Hub) work(ctx context.Context, s *shard) {
	defer s.held.due.Stop()
	var dirty []Sender
	for {
		size := 0
		select {
		case <-ctx.Done():
			return
		case msg := <-s.live:
			size = len(msg.Data)
			h.take(msg, &dirty)
		case sender := <-s.replies:
			dirty = append(dirty, sender)
		case <-s.held.due.C:
			dirty = s.held.release(dirty)
		}
		for n := 1; n < shardDrain && size < shardDrainBytes && len(s.live) > 0; n++ {
			msg := <-s.live
			size += len(msg.Data)
			h.take(msg, &dirty)
		}
		for n := 0; n < shardDrain && len(s.replies) > 0; n++ {
			dirty = append(dirty, <-s.replies)
		}
		if size > 0 {
			dirty = s.held.release(dirty)
		}
		flushAll(dirty)
		clear(dirty)
		dirty = dirty[:0]
	}
}

// shardOf returns the shard of a conversation. A conversation always has the same shard: otherwise its events could
// overtake each other.
func (h *Hub) shardOf(conversationID ids.Conversation) *shard {
	return &h.shards[conversation.Partition(conversationID, len(h.shards))]
}

// FlushSoon makes the conversation's shard flush a sender's queue, together with the events that wait in the shard.
func (h *Hub) FlushSoon(conversationID ids.Conversation, sender Sender) {
	select {
	case h.shardOf(conversationID).replies <- sender:
	default:
		sender.Flush() // the queue of the shard is full
	}
}

func (h *Hub) take(msg *nats.Msg, dirty *[]Sender) {
	var live brokerv1.Live
	if err := live.UnmarshalVT(msg.Data); err != nil {
		h.cfg.Logger.Error("a live message cannot be decoded", "subject", msg.Subject, "error", err)
		return
	}
	r := h.Room(broker.ConversationOf(msg.Subject))
	if r == nil {
		return // all subscribers have left meanwhile
	}
	traces := h.cfg.Tracer.FanOut(h.ctx, &live)
	entries := newEntries(live.GetEvents())
	for i, t := range traces {
		entries[i].trace = t
	}
	for _, e := range entries {
		e.committedNs = live.GetCommittedNs()
	}
	r.takeMessage(&live, entries, dirty)
	for _, t := range traces {
		if t != nil {
			t.End(0) // the event was a repeat, or follows a missing event
		}
	}
}

// flushAll writes the queued messages of many links. It divides large numbers of links among the processors. Each write
// is a system call of a few microseconds: in sequence, the last reader of a large room would wait for all writes before.
func flushAll(dirty []Sender) {
	const worthSharing = 64
	if len(dirty) < worthSharing {
		for _, sender := range dirty {
			sender.Flush()
		}
		return
	}
	var group errgroup.Group
	for part := range slices.Chunk(dirty, (len(dirty)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0)) {
		group.Go(func() error {
			for _, sender := range part {
				sender.Flush()
			}
			return nil
		})
	}
	_ = group.Wait() // the functions of the group return no errors
}

// Named returns the ids of conversations in memory that is shared with their rooms. A client with thousands of conversations does
// not keep their ids a second time.
func (h *Hub) Named(summaries []*historyv1.Summary) []ids.Conversation {
	named := make([]ids.Conversation, len(summaries))
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, summary := range summaries {
		named[i] = ids.Conversation(summary.GetConversationId())
		if r := h.rooms[named[i]]; r != nil {
			named[i] = r.id
		}
	}
	return named
}

// Enter puts subscriptions into their rooms, and creates the rooms that do not exist yet. Both maps have the same keys.
func (h *Hub) Enter(subscriptions map[ids.Conversation]*Subscription, summaries []*historyv1.Summary) {
	var fresh []*Room
	for _, summary := range summaries {
		s := subscriptions[ids.Conversation(summary.GetConversationId())]
		h.mu.Lock()
		r := h.rooms[ids.Conversation(summary.GetConversationId())]
		if r == nil {
			r = &Room{hub: h, id: ids.Conversation(summary.GetConversationId()), key: h.cfg.Recorder.KeyOf(ids.Conversation(summary.GetConversationId()))}
			h.rooms[r.id] = r
			h.cfg.Metrics.Rooms.Set(float64(len(h.rooms)))
			fresh = append(fresh, r)
		}
		r.mu.Lock()
		h.mu.Unlock()
		r.addLocked(s)
		r.welcomeLocked(s, ids.Seq(summary.GetHead()))
		r.mu.Unlock()
	}
	for i, r := range fresh {
		if err := h.subscribe(r); err != nil {
			// Only a closed bus refuses subscriptions: the gateway is stopping.
			h.cfg.Logger.Warn("could not subscribe to a conversation", "conversation", r.id, "error", err)
			h.abandon(fresh[i:])
			return
		}
	}
	if len(fresh) > 0 {
		h.open(fresh)
	}
}

// subscribe subscribes a new room to its live messages. If the room was closed meanwhile, the subscription ends again.
func (h *Hub) subscribe(r *Room) error {
	sub, err := h.cfg.Bus.Subscribe(r.id, h.shardOf(r.id).live)
	if err != nil {
		return err
	}
	h.mu.Lock()
	open := h.rooms[r.id] == r
	if open {
		r.sub = sub
	}
	h.mu.Unlock()
	if !open {
		unsubscribe(sub)
	}
	return nil
}

// abandon removes rooms that have no subscription.
func (h *Hub) abandon(rooms []*Room) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range rooms {
		if h.rooms[r.id] == r {
			delete(h.rooms, r.id)
		}
	}
	h.cfg.Metrics.Rooms.Set(float64(len(h.rooms)))
}

// unsubscribe ends a subscription of the bus; nil is none. It fails only if the bus is closed, which ends the subscription as well.
func unsubscribe(sub Unsubscriber) {
	if sub != nil {
		_ = sub.Unsubscribe()
	}
}

// welcomeLocked initialises a new subscription. listed is the conversation's head in the list from which the subscription
// was made.
func (r *Room) welcomeLocked(s *Subscription, listed ids.Seq) {
	head := r.head
	r.hearLocked(listed)
	switch {
	case !r.ready: // the reload will handle every subscription of the room
	case listed < head:
		r.doubtLocked() // the room has taken newer events since the list was read, or the store was restored to an older state
		r.placeLocked(s)
	default:
		r.placeLocked(s)
	}
}

// readHeads reads the heads of rooms from history and passes each to tell: nil if the conversation does not exist. A call that
// fails does not prevent the others; the error is that of the first.
func (h *Hub) readHeads(ctx context.Context, rooms []*Room, tell func(*Room, *historyv1.Head)) (first error) {
	for part := range slices.Chunk(rooms, headsPerCall) {
		if err := h.readSomeHeads(ctx, part, tell); err != nil && first == nil {
			first = fmt.Errorf("read heads: %w", err)
		}
		if ctx.Err() != nil {
			break
		}
	}
	return first
}

// readSomeHeads is one call of history.
func (h *Hub) readSomeHeads(ctx context.Context, rooms []*Room, tell func(*Room, *historyv1.Head)) error {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.HistoryTimeout)
	defer cancel()
	list := make([]string, len(rooms))
	for i, r := range rooms {
		list[i] = string(r.id)
	}
	h.cfg.Metrics.Reads[metrics.ReadHeads].Inc()
	heads, err := h.cfg.Log.Heads(ctx, &historyv1.HeadsRequest{ConversationIds: list})
	if err != nil {
		return err
	}
	byID := make(map[string]*historyv1.Head, len(rooms))
	for _, head := range heads.GetHeads() {
		byID[head.GetConversationId()] = head
	}
	for _, r := range rooms {
		tell(r, byID[string(r.id)])
	}
	return nil
}

// Leave removes a subscription; removing the last one closes the room.
func (h *Hub) Leave(s *Subscription) {
	r := s.room.Load()
	if r == nil {
		return
	}
	h.mu.Lock()
	r.mu.Lock()
	s.abandon("the connection ended")
	r.removeLocked(s)
	ended := h.closeIfEmptyLocked(r)
	r.mu.Unlock()
	h.mu.Unlock()
	unsubscribe(ended)
}

// closeIfEmpty closes a room whose last member has left the conversation. Leave closes a room whose last session has
// ended.
func (h *Hub) closeIfEmpty(r *Room) {
	h.mu.Lock()
	r.mu.Lock()
	ended := h.closeIfEmptyLocked(r)
	r.mu.Unlock()
	h.mu.Unlock()
	unsubscribe(ended)
}

// closeIfEmptyLocked must be called with Hub.mu and Room.mu held. It returns the subscription that the caller must end
// without these locks; nil for none.
func (h *Hub) closeIfEmptyLocked(r *Room) (ended Unsubscriber) {
	if len(r.subscriptions) > 0 || h.rooms[r.id] != r {
		return nil
	}
	r.closed = true
	delete(h.rooms, r.id)
	h.cfg.Metrics.Rooms.Set(float64(len(h.rooms)))
	r.growLocked(-r.bytes)
	r.recent = nil
	return r.sub
}

// Sweep repeats events that stayed unacknowledged for too long, frees what quiet rooms do not need, and closes empty rooms.
func (h *Hub) Sweep(now time.Time) {
	for _, r := range h.all() {
		r.sweep(now)
		if r.empty() {
			h.closeIfEmpty(r)
		}
	}
}

// Room returns the room of a conversation; nil if no session on this gateway is subscribed to it.
func (h *Hub) Room(conversationID ids.Conversation) *Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.rooms[conversationID]
}

// Count returns the number of rooms.
func (h *Hub) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.rooms)
}

// RecentBytes returns the total size of the recent events in memory.
func (h *Hub) RecentBytes() int64 { return h.recentBytes.Load() }

// Waiting returns how many live messages wait in each shard.
func (h *Hub) Waiting() []int {
	waiting := make([]int, len(h.shards))
	for i := range h.shards {
		waiting[i] = len(h.shards[i].live)
	}
	return waiting
}

func (h *Hub) all() []*Room {
	h.mu.Lock()
	defer h.mu.Unlock()
	rooms := make([]*Room, 0, len(h.rooms))
	for _, r := range h.rooms {
		rooms = append(rooms, r)
	}
	return rooms
}

// Compare reads the heads of all rooms from history, spread over the duration within. It detects that the last live
// message of a conversation was lost, or that the store was restored to an older state.
func (h *Hub) Compare(ctx context.Context, within time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := h.compareRooms(ctx, h.all()); err != nil && ctx.Err() == nil {
		h.cfg.Logger.Warn("could not read the heads of conversations from history, to compare them with the rooms", "error", err)
	}
}

func (h *Hub) compareRooms(ctx context.Context, rooms []*Room) error {
	for part := range slices.Chunk(rooms, headsPerCall) {
		before := make(map[*Room]standpoint, len(part)) // the store must have every event that was taken before this line, unless it was restored to an older state
		for _, r := range part {
			before[r] = r.standpoint()
		}
		if err := h.readHeads(ctx, part, func(r *Room, head *historyv1.Head) { r.compare(before[r], head) }); err != nil {
			return err
		}
	}
	return nil
}
