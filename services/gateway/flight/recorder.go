package flight

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/runnelhq/runnel/pkg/ids"
	gatewayv1 "github.com/runnelhq/runnel/proto/runnel/gateway/v1"
)

// Recorder is the flight recorder: it keeps the last steps of events, so that operators can find out afterwards why a
// user did or did not get an event. Its memory is fixed from the start; the newest step overwrites the oldest.
//
// A step is one entry, however many events it covers. Recording a step allocates nothing. Delivering an event to a
// connection takes three steps: queued, written, acknowledged. So the default of ExplainEntries covers the last 65,000
// deliveries: eleven minutes at a hundred a second, a minute at a thousand. Each entry takes 32 bytes.
//
// Each shard is a ring with a lock of its own. All steps of a connection are in one shard, and all steps of a room are in
// one shard. Therefore a query about one user and one conversation searches only a few shards.
type Recorder struct {
	started time.Time
	seed    maphash.Seed
	shards  [recorderShards]shard
	on      bool
	workers workers
}

const recorderShards = 16 // a power of two, so that finding a shard takes no division

type shard struct {
	mu    sync.Mutex
	ring  []step
	next  int
	since int64 // time of the newest step that was overwritten; 0 if no step was overwritten

	_ [64]byte // padding: different processors write the shards, so two shards must not share a cache line
}

// step is one entry. Its kind determines which fields are used.
type step struct {
	at   int64   // Unix ns
	last ids.Seq // the last seq of the stretch
	what uint32  // kind in the low byte; the stretch's length minus one above it
	room uint32  // first half of the room's key
	conn uint32  // number of the connection; for stepCommitted, number of the worker
	mark uint32  // position in the connection's send queue; for steps of a whole room, the second half of the room's key
}

// stepCommitted marks an entry with the commit data of a live message. It is not a step of this gateway.
const stepCommitted gatewayv1.StepKind = 0xff

const (
	kindBits = 8
	// maxStretch is the largest number of events that one entry covers; longer stretches take several entries.
	maxStretch = 1 << (32 - kindBits)
)

// NewRecorder makes a recorder of about this many entries; with fewer than one per shard it records nothing.
func NewRecorder(entries int) *Recorder {
	r := &Recorder{started: time.Now(), seed: maphash.MakeSeed()}
	if size := entries / recorderShards; size > 0 {
		r.on = true
		for i := range r.shards {
			r.shards[i].ring = make([]step, 0, size)
		}
	}
	return r
}

// Key identifies a conversation in steps. The hash seed prevents users from choosing ids that collide.
type Key uint64

// KeyOf returns the key of a conversation in this recorder.
func (r *Recorder) KeyOf(conversationID ids.Conversation) Key {
	return Key(maphash.String(r.seed, string(conversationID)))
}

// Room records a step of a whole room.
func (r *Recorder) Room(kind gatewayv1.StepKind, at time.Time, key Key, first, last ids.Seq) {
	if r.on {
		r.note(r.ofRoom(key), kind, step{at: at.UnixNano(), room: uint32(key), mark: uint32(key >> 32)}, first, last)
	}
}

// Committed records the worker and the time of a commit, as reported by the live message with its events.
func (r *Recorder) Committed(key Key, worker string, at int64, first, last ids.Seq) {
	if r.on {
		r.note(r.ofRoom(key), stepCommitted, step{at: at, room: uint32(key), mark: uint32(key >> 32), conn: r.workers.number(worker)}, first, last)
	}
}

// Subscription records a step of one connection in one room.
func (r *Recorder) Subscription(kind gatewayv1.StepKind, at time.Time, key Key, conn, mark uint32, first, last ids.Seq) {
	if r.on {
		r.note(r.ofConn(conn), kind, step{at: at.UnixNano(), room: uint32(key), conn: conn, mark: mark}, first, last)
	}
}

// Written records that everything queued to a connection up to a mark was written to the socket.
func (r *Recorder) Written(conn, mark uint32) {
	if r.on {
		r.note(r.ofConn(conn), gatewayv1.StepKind_STEP_KIND_WRITTEN, step{at: time.Now().UnixNano(), conn: conn, mark: mark}, 0, 0)
	}
}

func (r *Recorder) ofRoom(key Key) *shard       { return &r.shards[key%recorderShards] }
func (r *Recorder) ofConn(number uint32) *shard { return &r.shards[number%recorderShards] }

// note records a step for the events first to last. A stretch that is too long for one entry takes several entries. If
// these would fill the whole ring more than once, only the last ones are recorded.
func (r *Recorder) note(s *shard, kind gatewayv1.StepKind, entry step, first, last ids.Seq) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if most := ids.Seq(cap(s.ring)) * maxStretch; last-first >= most {
		first = last - most + 1
	}
	for {
		n := min(last-first, maxStretch-1)
		entry.last, entry.what = first+n, uint32(kind)&(1<<kindBits-1)|uint32(n)<<kindBits
		if len(s.ring) < cap(s.ring) {
			s.ring = append(s.ring, entry)
		} else {
			if oldest := &s.ring[s.next]; oldest.kind() != stepCommitted { // the time of stepCommitted comes from another machine's clock
				s.since = max(s.since, oldest.at)
			}
			s.ring[s.next] = entry
			if s.next++; s.next == len(s.ring) {
				s.next = 0
			}
		}
		if entry.last == last {
			return
		}
		first += n + 1
	}
}

func (s *step) kind() gatewayv1.StepKind { return gatewayv1.StepKind(s.what & (1<<kindBits - 1)) }
func (s *step) first() ids.Seq           { return s.last - ids.Seq(s.what>>kindBits) }
func (s *step) covers(seq ids.Seq) bool  { return s.first() <= seq && seq <= s.last }

func (s *step) isOf(key Key) bool {
	return s.room == uint32(key) && s.mark == uint32(key>>32)
}

// look calls see for every step in the shard, oldest first. Every step that was recorded after since is still in the
// shard.
func (s *shard) look(see func(*step)) (since int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.ring {
		see(&s.ring[(s.next+i)%len(s.ring)])
	}
	return s.since
}

// Started returns the time at which the recorder was made.
func (r *Recorder) Started() time.Time { return r.started }

// Since returns the time after which no recorded step was overwritten in any shard.
func (r *Recorder) Since() time.Time {
	since := r.started
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		if t := time.Unix(0, s.since); s.since != 0 && t.After(since) {
			since = t
		}
		s.mu.Unlock()
	}
	return since
}

// workers numbers delivery workers by name. Few are alive at a time; each restart brings a new name.
type workers struct {
	mu    sync.Mutex
	names []string // oldest first
	first uint32   // number of names[0]
}

// maxWorkers limits the names that are kept.
const maxWorkers = 256

func (w *workers) number(name string) uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, known := range slices.Backward(w.names) {
		if known == name {
			return w.first + uint32(i)
		}
	}
	if w.names = append(w.names, name); len(w.names) > maxWorkers {
		w.names = w.names[1:]
		w.first++
	}
	return w.first + uint32(len(w.names)-1)
}

// name returns the name of a worker; empty if it is no longer kept.
func (w *workers) name(number uint32) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if i := int64(number) - int64(w.first); i >= 0 && i < int64(len(w.names)) {
		return w.names[i]
	}
	return ""
}
