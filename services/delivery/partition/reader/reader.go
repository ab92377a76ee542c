// Package reader reads a partition's stream in order into a bounded queue.
package reader

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/runnelhq/runnel/pkg/ids"
	"github.com/runnelhq/runnel/services/delivery/source"
	"github.com/runnelhq/runnel/services/delivery/wake"
)

// errGap means that the broker skipped a sequence. The next session finds out whether the message was lost or just not
// delivered.
var errGap = errors.New("the broker skipped messages")

// Queue is the bounded queue between the reader of a stream and the commit loop. While a batch is being appended, the
// queue collects the next batch. It holds one batch. If it is full, the reader waits, and the broker stops sending.
type Queue struct {
	maxEntries, maxBytes int
	depth                prometheus.Gauge

	mu      sync.Mutex
	entries []source.Message
	bytes   int
	pending uint64 // messages in the stream after the last entry
	err     error

	Ready wake.Signal // has a token when there are entries or an error
	freed wake.Signal // has a token when entries were removed
}

// NewQueue makes a queue of at most maxEntries messages and maxBytes of payload; depth reports its length.
func NewQueue(maxEntries, maxBytes int, depth prometheus.Gauge) *Queue {
	return &Queue{maxEntries: maxEntries, maxBytes: maxBytes, depth: depth, Ready: wake.NewSignal(), freed: wake.NewSignal()}
}

// put adds an entry, and waits for room if necessary. It returns false if ctx ended first.
func (q *Queue) put(ctx context.Context, e source.Message, pending uint64) bool {
	for {
		q.mu.Lock()
		if len(q.entries) < q.maxEntries && (q.bytes == 0 || q.bytes+len(e.Payload) <= q.maxBytes) {
			q.entries = append(q.entries, e)
			q.bytes += len(e.Payload)
			q.pending = pending
			q.depth.Set(float64(len(q.entries)))
			q.mu.Unlock()
			q.Ready.Raise()
			return true
		}
		q.mu.Unlock()
		select {
		case <-q.freed:
		case <-ctx.Done():
			return false
		}
	}
}

// fail ends the queue; err is the reason why no more messages come.
func (q *Queue) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.mu.Unlock()
	q.Ready.Raise()
}

// TakeAll removes and returns all messages, and reuses the memory of spare. The error is returned after the last message.
func (q *Queue) TakeAll(spare []source.Message) (entries []source.Message, pending uint64, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(spare)
	entries, q.entries, q.bytes = q.entries, spare[:0], 0
	q.depth.Set(0)
	if len(entries) == 0 {
		return entries, 0, q.err
	}
	if q.err != nil {
		q.Ready.Raise()
	}
	q.freed.Raise()
	return entries, q.pending, nil
}

// Settings of the consumers that read the streams. Two missed heartbeats end the session, because the broker may have
// forgotten a request. A constant network delay causes no missed heartbeat, because the broker sends heartbeats by its
// own clock. A network that is silent for two seconds costs a new session, whose takeover makes about six consecutive
// calls. With 60 ms from the worker to the broker, a command then waits up to 3.3 s: 2 s for the heartbeats, the rest for
// the takeover.
const (
	readHeartbeat = time.Second
	readExpiry    = 10 * time.Second
	readAhead     = 512
	readAheadSize = 2 << 20
	consumerIdle  = 15 * time.Second
	consumerGrace = time.Second
)

// reader reads a partition's stream in order into a queue.
type reader struct {
	queue *Queue
	next  ids.Sequence // the next expected sequence
	// strict is the first sequence from which no message may be missing. The messages below it were committed long ago
	// and are read only to republish their outcomes.
	strict ids.Sequence
	broken bool // a gap was found; no later message is accepted
}

// Start starts to read at the sequence from. Its goroutines belong to the NATS client; they end with the context, and stop waits
// for them.
func Start(ctx context.Context, js jetstream.JetStream, stream string, from, strict ids.Sequence, in *Queue) (stop func(), err error) {
	consumer, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Description:       "Runnel: the worker of this partition",
		DeliverPolicy:     jetstream.DeliverByStartSequencePolicy,
		OptStartSeq:       uint64(from),
		AckPolicy:         jetstream.AckNonePolicy, // the watermark records the position, so the broker need not track it
		MemoryStorage:     true,
		Replicas:          1,
		InactiveThreshold: consumerIdle,
	})
	if err != nil {
		return nil, fmt.Errorf("make a consumer of %s at %d: %w", stream, from, err)
	}
	r := &reader{queue: in, next: from, strict: strict}
	reading, cancel := context.WithCancel(ctx)
	consuming, err := consumer.Consume(
		func(msg jetstream.Msg) { r.handle(reading, msg) },
		jetstream.PullMaxMessagesWithBytesLimit(readAhead, readAheadSize),
		jetstream.PullExpiry(readExpiry), jetstream.PullHeartbeat(readHeartbeat),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			in.fail(fmt.Errorf("read %s: %w", stream, err))
		}),
	)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("read %s from %d: %w", stream, from, err)
	}
	return func() {
		cancel()
		consuming.Stop()
		<-consuming.Closed()
		// The broker soon removes the consumer by itself. This call only removes it earlier, so its error is ignored.
		tidy, done := context.WithTimeout(context.WithoutCancel(ctx), consumerGrace)
		defer done()
		_ = js.DeleteConsumer(tidy, stream, consumer.CachedInfo().Name)
	}, nil
}

// handle handles one message. It runs on the consumer's goroutine, one message at a time.
func (r *reader) handle(ctx context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		r.queue.fail(fmt.Errorf("a message of the stream has no position: %w", err))
		return
	}
	sequence := ids.Sequence(meta.Sequence.Stream)
	switch {
	case r.broken || sequence < r.next: // a lower sequence was delivered twice
		return
	case sequence > r.next && sequence > r.strict:
		r.queue.fail(fmt.Errorf("%w: after %d came %d", errGap, r.next-1, sequence))
		r.broken = true
		return
	}
	r.next = sequence + 1
	r.queue.put(ctx, source.FromStream(sequence, msg.Subject(), meta.Timestamp, msg.Headers(), msg.Data()), meta.NumPending)
}
