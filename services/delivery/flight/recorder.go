package flight

import (
	"hash/maphash"
	"math"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	conversationv1 "github.com/runnelhq/runnel/proto/runnel/conversation/v1"
	deliveryv1 "github.com/runnelhq/runnel/proto/runnel/delivery/v1"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/pkg/telemetry"
	"github.com/runnelhq/runnel/services/delivery/source"
)

// Recorder remembers the last commits of a worker, so that the history of one event can be queried later. Its memory is allocated
// once and never grows: the newest commit replaces the oldest, and Since reports how far back the memory reaches.
//
// An event is identified by the hash of its conversation's id and its seq. Two conversations with the same 64-bit hash would be
// confused; the hash has a new seed with every start, so users cannot choose colliding ids.
type Recorder struct {
	seed maphash.Seed

	mu      sync.Mutex
	records []record // a ring buffer
	written int      // records ever written; the next goes to written % len(records)
	buckets []uint32 // 1 + index of the newest record of a chain; 0 if the chain is empty
	// traces are the traces of the sampled records. They are in a small ring buffer of their own, because most records
	// have no trace.
	traces []recordTrace
	traced int // number of traces ever written
	// forgotten is the latest time of an overwritten record. All records with a later time still exist.
	forgotten time.Time
}

// record describes one event. It takes eighty bytes, including its share of buckets and traces.
type record struct {
	conversation   uint64
	seq            ids.Seq
	sequence       ids.Sequence // sequence of the command in the stream
	acceptedNs     int64
	committedNs    int64 // 0 if the event was only republished, because another session or worker committed it
	republishedNs  int64
	trace          int    // 1 + number of the record's trace; 0 if it has no trace
	publishedAfter uint32 // time of publishing, in microseconds after committedNs, saturated; 0 if not published
	older          uint32 // 1 + index of the next older record in the chain; 0 if there is none
	batch          uint16
}

type recordTrace struct {
	traceID trace.TraceID
	spanID  trace.SpanID
}

// recordsPerTrace is the number of records per slot for a trace.
const recordsPerTrace = 16

// NewRecorder makes a recorder that keeps a number of records. started is the time at which recording begins.
func NewRecorder(entries int, started time.Time) *Recorder {
	buckets := 1
	for buckets < entries {
		buckets *= 2
	}
	return &Recorder{
		seed: maphash.MakeSeed(), forgotten: started,
		records: make([]record, entries), buckets: make([]uint32, buckets), traces: make([]recordTrace, entries/recordsPerTrace+1),
	}
}

// Commit describes a committed batch for the recorder.
type Commit struct {
	Messages     []source.Message
	Events       []*conversationv1.Event
	Causes       []int    // causes[i] is the index of the message that caused events[i]
	Traceparents []string // traces by index of the events; nil if none is sampled
	// Committed is when the store answered. Published is when all messages were handed to the broker.
	Committed, Published time.Time
	// Unpublished contains the conversations whose events did not reach the broker.
	Unpublished map[ids.Conversation]struct{}
}

// RecordCommit records the events of a batch.
func (r *Recorder) RecordCommit(c *Commit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	after := uint32(min(max(c.Published.Sub(c.Committed).Microseconds(), 1), math.MaxUint32))
	for i, event := range c.Events {
		cause := &c.Messages[c.Causes[i]]
		next := record{
			conversation: r.hash(ids.Conversation(event.GetConversationId())), seq: ids.Seq(event.GetSeq()), sequence: cause.Sequence,
			acceptedNs: cause.TimeNs, committedNs: c.Committed.UnixNano(), publishedAfter: after,
			batch: uint16(min(len(c.Messages), math.MaxUint16)),
		}
		if _, failed := c.Unpublished[ids.Conversation(event.GetConversationId())]; failed {
			next.publishedAfter = 0
		}
		if c.Traceparents != nil {
			next.trace = r.keepTraceLocked(c.Traceparents[i])
		}
		r.addLocked(next)
	}
}

// RecordRepublished records that events were republished.
func (r *Recorder) RecordRepublished(events []*conversationv1.Event, now time.Time, unpublished map[ids.Conversation]struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range events {
		if _, failed := unpublished[ids.Conversation(event.GetConversationId())]; failed {
			continue
		}
		conversation := r.hash(ids.Conversation(event.GetConversationId()))
		if known := r.findLocked(conversation, ids.Seq(event.GetSeq())); known != nil {
			known.republishedNs = now.UnixNano()
			continue
		}
		r.addLocked(record{conversation: conversation, seq: ids.Seq(event.GetSeq()), republishedNs: now.UnixNano()})
	}
}

// Explain adds the recorded history of an event to an answer.
func (r *Recorder) Explain(conversationID ids.Conversation, seq ids.Seq, answer *deliveryv1.ExplainResponse) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Round up, so that the answer never claims a longer memory than the real one.
	answer.RemembersSinceMs = r.forgotten.UnixMilli() + 1
	known := r.findLocked(r.hash(conversationID), seq)
	if known == nil {
		return
	}
	answer.RepublishedNs = known.republishedNs
	if known.committedNs == 0 {
		return
	}
	answer.Commit = &deliveryv1.Commit{
		Sequence: uint64(known.sequence), AcceptedNs: known.acceptedNs, CommittedNs: known.committedNs, Batch: uint32(known.batch),
		Traceparent: r.traceparentLocked(known),
	}
	if known.publishedAfter > 0 {
		answer.Commit.PublishedNs = known.committedNs + int64(known.publishedAfter)*1000
	}
}

// Since returns the time since which every commit is recorded.
func (r *Recorder) Since() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forgotten
}

func (r *Recorder) hash(conversationID ids.Conversation) uint64 {
	return maphash.String(r.seed, string(conversationID))
}

// bucketLocked returns the bucket of an event's chain. The hash has random high bits, so the seqs of a conversation spread
// over the buckets.
func (r *Recorder) bucketLocked(conversation uint64, seq ids.Seq) *uint32 {
	return &r.buckets[(ids.Seq(conversation)+seq)&ids.Seq(len(r.buckets)-1)]
}

func (r *Recorder) findLocked(conversation uint64, seq ids.Seq) *record {
	for next := *r.bucketLocked(conversation, seq); next != 0; next = r.records[next-1].older {
		if known := &r.records[next-1]; known.conversation == conversation && known.seq == seq {
			return known
		}
	}
	return nil
}

func (r *Recorder) addLocked(next record) {
	index := r.written % len(r.records)
	if r.written >= len(r.records) {
		r.forgetLocked(index)
	}
	head := r.bucketLocked(next.conversation, next.seq)
	next.older = *head
	r.records[index] = next
	*head = uint32(index) + 1
	r.written++
}

// forgetLocked removes the oldest record, which is the last of its chain.
func (r *Recorder) forgetLocked(index int) {
	gone := &r.records[index]
	at := r.bucketLocked(gone.conversation, gone.seq)
	for *at != uint32(index)+1 {
		at = &r.records[*at-1].older
	}
	*at = 0
	if last := time.Unix(0, max(gone.committedNs, gone.republishedNs)); last.After(r.forgotten) {
		r.forgotten = last
	}
}

// keepTraceLocked stores a trace and returns its number plus 1; 0 if there is no trace.
func (r *Recorder) keepTraceLocked(traceparent string) int {
	link, sampled := telemetry.Link(traceparent)
	if !sampled {
		return 0
	}
	r.traces[r.traced%len(r.traces)] = recordTrace{link.SpanContext.TraceID(), link.SpanContext.SpanID()}
	r.traced++
	return r.traced
}

// traceparentLocked returns the trace of a record; empty if the record has no trace or the trace was overwritten.
func (r *Recorder) traceparentLocked(known *record) string {
	if known.trace == 0 || known.trace+len(r.traces) <= r.traced {
		return ""
	}
	kept := r.traces[(known.trace-1)%len(r.traces)]
	return "00-" + kept.traceID.String() + "-" + kept.spanID.String() + "-01"
}
