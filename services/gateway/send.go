package gateway

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

// closeGrace is how long a connection that is being closed may take to read what was sent before, and to answer.
const closeGrace = 3 * time.Second

// outbox is the sending half of a connection: ready-made WebSocket frames on their way to the socket.
//
//	idle ──send──▶ written straight to the socket by the caller
//	  │               │ socket full
//	  │               ▼
//	  └──drained── writing (one goroutine, for as long as there is a backlog; all of it in one write)
//	                  │ backlog above its limit: the connection is closed as slow
//
// It writes to the socket beside gorilla/websocket, which only reads: frames of a room are made once and shared.
type outbox struct {
	queue  [][]byte
	queued int // bytes in queue and in the writer's hands
	// mark counts what was queued, so that it can be told what was written: mark of the last one queued, of the last one
	// that carried events, and that up to which writing was noted.
	mark, events, noted uint32
	taken               uint32 // mark up to which the writer has taken the queue
	cut                 bool   // what was queued after taken was dropped
	followed            []*flight.Delivery
	begun               bool // the first of queue is the rest of frames that were written in part
	writing             bool
	closing             bool // nothing may be queued any more
	try                 attempt
	drained             chan struct{} // signalled when the writer is done, for fillers that wait; made when first needed
}

// attempt is one non-blocking write, kept in the connection so that a write allocates nothing.
type attempt struct {
	raw  syscall.RawConn
	run  func(fd uintptr) bool
	data []byte
	n    int
	err  error
}

func (a *attempt) init(raw syscall.RawConn) {
	a.raw = raw
	a.run = func(fd uintptr) bool {
		a.n, a.err = syscall.Write(int(fd), a.data)
		return true // never wait here: a full socket is the writer goroutine's business
	}
}

// write writes what the socket takes at once and returns the rest.
func (a *attempt) write(data []byte) (rest []byte, err error) {
	if a.raw == nil {
		return data, nil // no plain socket below, so the writer goroutine does it all
	}
	a.data = data
	err = a.raw.Write(a.run)
	a.data = nil
	switch {
	case err != nil:
		return data, err
	case errors.Is(a.err, syscall.EAGAIN) || errors.Is(a.err, syscall.EINTR):
		return data, nil
	case a.err != nil:
		return data, a.err
	}
	return data[a.n:], nil
}

// enqueue adds ready-made frames without writing them. It reports whether they are the first: then the caller calls flush
// when it has no more for this connection. Otherwise somebody else does, or the writer is at it.
func (c *conn) enqueue(frames []byte) (first bool) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	return !c.out.closing && c.enqueueLocked(frames)
}

// enqueueEvents is enqueue for frames that explain what became of events. It gives their mark, 0 when they were not queued.
func (c *conn) enqueueEvents(frames []byte, followed []*flight.Delivery) (mark uint32, first bool) {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	o := &c.out
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
	return o.events, c.enqueueLocked(frames)
}

const closedBefore = "the connection was closed before it was written"

// enqueueLocked queues frames of a connection that is not closing.
func (c *conn) enqueueLocked(frames []byte) (first bool) {
	c.out.mark++
	c.out.queue = append(c.out.queue, frames)
	c.out.queued += len(frames)
	if c.out.queued > c.gw.cfg.SendQueueBytes && c.out.writing {
		c.gw.metrics.Limits[metrics.LimitSendQueue].Inc()
		c.closeLocked(errcode.CloseSlow, "too much is waiting to be read")
	}
	return len(c.out.queue) == 1 && !c.out.writing
}

// send writes ready-made frames, or queues them behind those that wait already.
func (c *conn) send(frames []byte) {
	c.enqueue(frames)
	c.flush()
}

// flush writes what is queued straight to the socket, and hands the rest to a writer.
func (c *conn) flush() {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	c.flushLocked()
}

func (c *conn) flushLocked() {
	o := &c.out
	if o.writing || len(o.queue) == 0 {
		return
	}
	data, joined := o.queue[0], false
	if len(o.queue) > 1 && o.queued <= joinBytes {
		buffer := c.gw.takeBuffer()
		defer c.gw.buffers.Put(buffer)
		data, joined = (*buffer)[:0], true
		for _, frames := range o.queue {
			data = append(data, frames...)
		}
		*buffer = data
		clear(o.queue[1:])
		o.queue = o.queue[:1]
	}
	rest, err := o.try.write(data)
	if joined && len(rest) > 0 {
		rest = bytes.Clone(rest) // the buffer goes back
	}
	if err != nil {
		c.dropLocked()
		return
	}
	o.queued -= len(data) - len(rest)
	c.gw.metrics.Writes.Inc()
	c.gw.metrics.BytesOut.Add(float64(len(data) - len(rest)))
	if len(rest) == 0 && len(o.queue) == 1 {
		c.handedOver(o.mark)
		o.queue[0] = nil
		o.queue = o.queue[:0]
		if cap(o.queue) > 4 {
			o.queue = nil // idle connections hold no buffers
		}
		c.signalDrainedLocked()
		return
	}
	if len(rest) == 0 {
		o.queue = o.queue[1:]
	} else {
		o.queue[0], o.begun = rest, len(rest) < len(data)
	}
	o.writing = true
	c.gw.writers.Add(1)
	go c.drain()
}

// handedOver notes that everything queued up to a mark was taken by the operating system. Callers hold sendMu.
func (c *conn) handedOver(mark uint32) {
	o := &c.out
	if o.events == o.noted || int32(mark-o.noted) <= 0 || (o.cut && int32(mark-o.taken) > 0) {
		return
	}
	c.gw.recorder.Written(c.number, mark)
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

// cutOff notes that what was queued after a mark will never be handed over. Callers hold sendMu.
func (c *conn) cutOff(after uint32) {
	o := &c.out
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

// joinBytes is the backlog up to which joining frames into one buffer is cheaper than a vectored write.
const joinBytes = 32 << 10

// drain writes the backlog, as much as there is in one write, until there is none.
func (c *conn) drain() {
	defer c.gw.writers.Done()
	for {
		c.sendMu.Lock()
		o := &c.out
		if len(o.queue) == 0 {
			o.writing = false
			_ = c.raw.SetWriteDeadline(time.Time{})
			c.signalDrainedLocked()
			c.sendMu.Unlock()
			return
		}
		backlog, mark := net.Buffers(o.queue), o.mark
		if !o.cut {
			o.taken = mark
		}
		o.queue, o.begun = nil, false
		size := 0
		for _, frames := range backlog {
			size += len(frames)
		}
		timeout := c.gw.cfg.WriteTimeout
		if o.closing {
			timeout = closeGrace
		}
		_ = c.raw.SetWriteDeadline(time.Now().Add(timeout))
		c.sendMu.Unlock()

		_, err := backlog.WriteTo(c.raw)

		c.sendMu.Lock()
		o.queued -= size
		c.gw.metrics.Writes.Inc()
		c.gw.metrics.BytesOut.Add(float64(size))
		if err != nil {
			if errors.Is(err, syscall.ETIMEDOUT) || isTimeout(err) {
				c.noteClosedLocked(errcode.CloseSlow)
			}
			o.writing = false
			c.dropLocked()
			c.sendMu.Unlock()
			return
		}
		c.handedOver(mark)
		c.signalDrainedLocked()
		c.sendMu.Unlock()
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// waitForRoom is for fillers: it waits until less than half of the queue is taken, so that what it sends never makes a client slow.
func (c *conn) waitForRoom() bool {
	for {
		c.sendMu.Lock()
		if c.out.closing {
			c.sendMu.Unlock()
			return false
		}
		if c.out.queued <= c.gw.cfg.SendQueueBytes/2 {
			c.sendMu.Unlock()
			return true
		}
		if c.out.drained == nil {
			c.out.drained = make(chan struct{})
		}
		drained := c.out.drained
		c.sendMu.Unlock()
		select {
		case <-drained:
		case <-c.done:
			return false
		}
	}
}

func (c *conn) signalDrainedLocked() {
	if c.out.drained != nil {
		close(c.out.drained)
		c.out.drained = nil
	}
}

// close says goodbye with a code and lets the reader end the connection. Later calls change nothing and report false.
func (c *conn) close(code errcode.CloseCode, reason string) bool {
	c.sendMu.Lock()
	defer c.sendMu.Unlock()
	return c.closeLocked(code, reason)
}

func (c *conn) closeLocked(code errcode.CloseCode, reason string) bool {
	if c.out.closing {
		return false
	}
	c.noteClosedLocked(code)
	c.out.closing = true
	// What was not begun is dropped: the client resumes. For a slow client that is the point of closing.
	if code == errcode.CloseSlow {
		keep := 0
		if c.out.begun {
			keep = 1 // or the close frame would land in the middle of another
		}
		for _, frames := range c.out.queue[keep:] {
			c.out.queued -= len(frames)
		}
		c.out.queue = c.out.queue[:keep]
		c.cutOff(c.out.taken)
	}
	frame := appendFrame(nil, websocket.CloseMessage, websocket.FormatCloseMessage(int(code), reason))
	c.out.queue = append(c.out.queue, frame)
	c.out.queued += len(frame)
	if c.out.writing {
		_ = c.raw.SetWriteDeadline(time.Now().Add(closeGrace))
	} else {
		c.flushLocked()
	}
	// The reader ends when the client answers the close frame, or at this deadline.
	_ = c.raw.SetReadDeadline(time.Now().Add(closeGrace))
	c.signalDrainedLocked()
	return true
}

// dropLocked ends a connection whose socket failed; there is nobody to say goodbye to.
func (c *conn) dropLocked() {
	c.out.closing = true
	c.out.queue, c.out.queued = nil, 0
	c.cutOff(c.out.noted)
	_ = c.raw.Close()
	c.signalDrainedLocked()
}

// noteClosedLocked keeps the first reason for closing, for the log and the metrics.
func (c *conn) noteClosedLocked(code errcode.CloseCode) {
	if c.closeCode == 0 {
		c.closeCode = code
	}
}

// appendFrame appends one unmasked, final WebSocket frame (RFC 6455, section 5.2).
func appendFrame(dst []byte, opcode int, payload []byte) []byte {
	dst = appendFrameHeader(dst, opcode, len(payload))
	return append(dst, payload...)
}

func appendFrameHeader(dst []byte, opcode, size int) []byte {
	const final = 0x80
	dst = append(dst, final|byte(opcode))
	switch {
	case size < 126:
		return append(dst, byte(size))
	case size <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(size))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 127), uint64(size))
	}
}
