// Package outbox is the sending half of a link: a queue of encoded messages, bounded in bytes, in front of a transport. It writes
// directly to the transport while the transport accepts data, and needs a goroutine only for a backlog. It knows bytes and close
// codes, never frames.
package outbox

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// CloseGrace is the time that a client has, after its link was closed, to read the messages sent before and to answer the
// close.
const CloseGrace = 3 * time.Second

// Transport is the connection that an outbox writes to. TryWrite and WriteBuffers are never called at the same time.
type Transport interface {
	// TryWrite writes as much as the transport accepts at once and returns the rest. It may return all of data: then a writer
	// goroutine does all writing.
	TryWrite(data []byte) (rest []byte, err error)
	// WriteBuffers writes everything, and blocks until it is written.
	WriteBuffers(buffers net.Buffers) error
	// Goodbye returns the last message of the link, which carries the close code.
	Goodbye(code errcode.CloseCode, reason string) []byte
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// Shared is common to the outboxes of a transport. All fields are required.
type Shared struct {
	MaxBytes     int           // limit of the bytes queued for one client; a client above it is closed as slow
	WriteTimeout time.Duration // time limit for a transport to accept its backlog
	Buffers      *Buffers
	Metrics      *metrics.Metrics
	Recorder     *flight.Recorder
	// Writers counts the goroutines that write a backlog. Its owner waits for them.
	Writers sync.WaitGroup
}

// Outbox is the sending half of one link. Initialise it with Init.
//
//	idle ──Queue, Flush──▶ written straight to the transport by the caller
//	  │               │ transport full
//	  │               ▼
//	  └──drained── writing (one goroutine, for as long as there is a backlog; all of it in one write)
//	                  │ backlog above its limit: the link is closed as slow
type Outbox struct {
	shared    *Shared
	transport Transport
	number    uint32 // number of the connection in the recorder
	done      chan struct{}

	mu     sync.Mutex
	queue  [][]byte
	queued int // bytes in queue and being written by the writer
	// Queued messages are numbered with marks, to track which were written. mark is the mark of the last queued message,
	// events the mark of the last queued message with events. Writing was recorded up to the mark noted.
	mark, events, noted uint32
	taken               uint32 // mark up to which the writer has taken messages from the queue
	cut                 bool   // messages queued after taken were dropped
	followed            []*flight.Delivery
	begun               bool // queue[0] is the unwritten rest of a partial write
	writing             bool
	closing             bool          // nothing more may be queued
	drained             chan struct{} // signalled when the writer is done, for waiting callers; made when first needed
	code                errcode.CloseCode
}

// Init initialises the outbox of a connection. The link must call End once, when it has ended.
func (o *Outbox) Init(shared *Shared, transport Transport, number uint32) {
	o.shared, o.transport, o.number, o.done = shared, transport, number, make(chan struct{})
}

// Done is closed by End.
func (o *Outbox) Done() <-chan struct{} { return o.done }

// Queue adds a message without writing it. If first is true, the caller must call Flush after its last message.
func (o *Outbox) Queue(message []byte) (first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.closing && o.queueLocked(message)
}

const closedBefore = "the connection was closed before it was written"

// QueueEvents is Queue for a message with events. It returns the message's mark, or 0 if the message was not queued.
func (o *Outbox) QueueEvents(message []byte, followed []*flight.Delivery) (mark uint32, first bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		for _, d := range followed {
			d.Abandon(closedBefore)
		}
		return 0, false
	}
	for _, d := range followed {
		d.Mark = o.mark + 1
	}
	o.followed = append(o.followed, followed...)
	o.events = o.mark + 1
	return o.events, o.queueLocked(message)
}

func (o *Outbox) queueLocked(message []byte) (first bool) {
	o.mark++
	o.queue = append(o.queue, message)
	o.queued += len(message)
	if o.queued > o.shared.MaxBytes && o.writing {
		o.shared.Metrics.Limits[metrics.LimitSendQueue].Inc()
		o.closeLocked(errcode.CloseSlow, "too much is waiting to be read")
	}
	return len(o.queue) == 1 && !o.writing
}

// Flush writes what is queued straight to the transport, and hands the rest to a writer.
func (o *Outbox) Flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
}

// joinBytes is the backlog up to which joining messages into one buffer is cheaper than a vectored write.
const joinBytes = 32 << 10

func (o *Outbox) flushLocked() {
	if o.writing || len(o.queue) == 0 {
		return
	}
	data, joined := o.queue[0], false
	if len(o.queue) > 1 && o.queued <= joinBytes {
		buffer := o.shared.Buffers.Take()
		defer o.shared.Buffers.Return(buffer)
		data, joined = (*buffer)[:0], true
		for _, message := range o.queue {
			data = append(data, message...)
		}
		*buffer = data
		clear(o.queue[1:])
		o.queue = o.queue[:1]
	}
	rest, err := o.transport.TryWrite(data)
	if joined && len(rest) > 0 {
		rest = bytes.Clone(rest) // the buffer returns to its pool
	}
	if err != nil {
		o.dropLocked()
		return
	}
	o.queued -= len(data) - len(rest)
	o.shared.Metrics.Writes.Inc()
	o.shared.Metrics.BytesOut.Add(float64(len(data) - len(rest)))
	if len(rest) == 0 && len(o.queue) == 1 {
		o.handedOverLocked(o.mark)
		o.queue[0] = nil
		o.queue = o.queue[:0]
		if cap(o.queue) > 4 {
			o.queue = nil // idle connections hold no buffers
		}
		o.signalDrainedLocked()
		return
	}
	if len(rest) == 0 {
		o.queue = o.queue[1:]
	} else {
		o.queue[0], o.begun = rest, len(rest) < len(data)
	}
	o.writing = true
	o.shared.Writers.Add(1)
	go o.writeBacklog()
}

// handedOverLocked records that the operating system has accepted everything queued up to a mark.
func (o *Outbox) handedOverLocked(mark uint32) {
	if o.events == o.noted || int32(mark-o.noted) <= 0 || (o.cut && int32(mark-o.taken) > 0) {
		return
	}
	o.shared.Recorder.Written(o.number, mark)
	o.noted = mark
	if int32(o.events-mark) <= 0 {
		o.events = mark
	}
	for len(o.followed) > 0 && int32(o.followed[0].Mark-mark) <= 0 {
		o.followed[0].Written()
		o.followed = o.followed[1:]
	}
	if len(o.followed) == 0 {
		o.followed = nil
	}
}

// cutOffLocked notes that messages queued after this mark were dropped and will never be written.
func (o *Outbox) cutOffLocked(after uint32) {
	o.cut, o.taken = true, after
	for i, d := range o.followed {
		if int32(d.Mark-after) > 0 {
			for _, lost := range o.followed[i:] {
				lost.Abandon(closedBefore)
			}
			o.followed = o.followed[:i]
			return
		}
	}
}

// writeBacklog writes the backlog, as much as possible in each write, until it is empty.
func (o *Outbox) writeBacklog() {
	defer o.shared.Writers.Done()
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			o.writing = false
			_ = o.transport.SetWriteDeadline(time.Time{})
			o.signalDrainedLocked()
			o.mu.Unlock()
			return
		}
		backlog, mark := net.Buffers(o.queue), o.mark
		if !o.cut {
			o.taken = mark
		}
		o.queue, o.begun = nil, false
		size := 0
		for _, message := range backlog {
			size += len(message)
		}
		timeout := o.shared.WriteTimeout
		if o.closing {
			timeout = CloseGrace
		}
		_ = o.transport.SetWriteDeadline(time.Now().Add(timeout))
		o.mu.Unlock()

		err := o.transport.WriteBuffers(backlog)

		o.mu.Lock()
		o.queued -= size
		o.shared.Metrics.Writes.Inc()
		o.shared.Metrics.BytesOut.Add(float64(size))
		if err != nil {
			if errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
				o.noteClosedLocked(errcode.CloseSlow)
			}
			o.writing = false
			o.dropLocked()
			o.mu.Unlock()
			return
		}
		o.handedOverLocked(mark)
		o.signalDrainedLocked()
		o.mu.Unlock()
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// WaitForRoom waits until less than half of the queue is used. It returns false if the link is closing.
func (o *Outbox) WaitForRoom() bool {
	for {
		o.mu.Lock()
		if o.closing {
			o.mu.Unlock()
			return false
		}
		if o.queued <= o.shared.MaxBytes/2 {
			o.mu.Unlock()
			return true
		}
		if o.drained == nil {
			o.drained = make(chan struct{})
		}
		drained := o.drained
		o.mu.Unlock()
		select {
		case <-drained:
		case <-o.done:
			return false
		}
	}
}

func (o *Outbox) signalDrainedLocked() {
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// QueuedBytes returns the number of bytes that wait to be written.
func (o *Outbox) QueuedBytes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return max(o.queued, 0)
}

// Closing reports whether nothing may be queued any more.
func (o *Outbox) Closing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

// Close sends the code as the last message, and lets the reader end the link. Later calls change nothing and return false.
func (o *Outbox) Close(code errcode.CloseCode, reason string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closeLocked(code, reason)
}

func (o *Outbox) closeLocked(code errcode.CloseCode, reason string) bool {
	if o.closing {
		return false
	}
	o.noteClosedLocked(code)
	o.closing = true
	// Messages whose write has not started are dropped; the client resumes to receive them again. A slow client is closed
	// exactly for this: to free its queue.
	if code == errcode.CloseSlow {
		keep := 0
		if o.begun {
			keep = 1 // queue[0] is half written; without its rest the close message would be written in the middle of a message
		}
		for _, message := range o.queue[keep:] {
			o.queued -= len(message)
		}
		o.queue = o.queue[:keep]
		o.cutOffLocked(o.taken)
	}
	goodbye := o.transport.Goodbye(code, reason)
	o.queue = append(o.queue, goodbye)
	o.queued += len(goodbye)
	if o.writing {
		_ = o.transport.SetWriteDeadline(time.Now().Add(CloseGrace))
	} else {
		o.flushLocked()
	}
	// The reader ends when the client answers, or at this deadline.
	_ = o.transport.SetReadDeadline(time.Now().Add(CloseGrace))
	o.signalDrainedLocked()
	return true
}

// End drops the queued messages and closes the transport. It returns the close code of the link; 0 if the connection was
// lost. The reader calls it once, as its last call.
func (o *Outbox) End() errcode.CloseCode {
	o.mu.Lock()
	code := o.code
	o.dropLocked()
	o.mu.Unlock()
	close(o.done)
	return code
}

// dropLocked ends a link whose transport failed: the close code can no longer reach the client.
func (o *Outbox) dropLocked() {
	o.closing = true
	o.queue, o.queued = nil, 0
	o.cutOffLocked(o.noted)
	_ = o.transport.Close()
	o.signalDrainedLocked()
}

// noteClosedLocked keeps the first reason for closing, for the log and the metrics.
func (o *Outbox) noteClosedLocked(code errcode.CloseCode) {
	if o.code == 0 {
		o.code = code
	}
}
