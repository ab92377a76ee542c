package websocket

import (
	"errors"
	"io"
	"time"

	"github.com/gorilla/websocket"

	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/link"
	"github.com/runnelhq/runnel/services/gateway/link/outbox"
	"github.com/runnelhq/runnel/services/gateway/metrics"
)

const (
	// lingerBytes is the number of bytes that are read and discarded from a client whose connection is being closed. If a
	// socket is closed with bytes unread, some systems drop the close code that was sent before.
	lingerBytes = 64 << 10
	// overheadBytes limits the frame headers of one message and the control frames between its fragments. It allows about
	// ten thousand empty fragments.
	overheadBytes = 64 << 10
	// The first freeBytes of a message are not counted against Config.Strangers: a buffer of 1 KiB exists anyway.
	freeBytes = 1024
)

var (
	errTooLarge = errors.New("message too large")
	errNoMemory = errors.New("no memory for this message")
)

// readMessage reads one message and passes it on. It returns false if no more messages will come.
func (l *Link) readMessage(receiver link.Receiver) bool {
	opened := receiver.Opened()
	limit := l.transport.cfg.MaxFirstBytes
	if opened {
		limit = l.transport.cfg.MaxMessageBytes
	}
	l.ws.SetReadLimit(int64(limit))
	if !l.Closing() {
		l.input.unmeter() // between messages only control frames arrive, which are counted one by one
	} else if !l.lingering {
		l.lingering = true
		l.input.meter(int64(limit) + lingerBytes)
	}
	kind, reader, err := l.ws.NextReader()
	if err != nil {
		l.readFailed(err)
		return false
	}
	if !l.lingering {
		l.input.meter(int64(limit) + overheadBytes)
	}
	if kind != l.encoding.Codec().MessageType() {
		l.Close(errcode.CloseProtocol, "wrong kind of WebSocket message for this subprotocol")
		return true
	}
	buffers := l.transport.cfg.Outboxes.Buffers
	buffer := buffers.Take()
	defer buffers.Return(buffer)
	memory := allowance{}
	if !opened {
		memory.from = l.transport.cfg.Strangers
		defer memory.giveBack()
	}
	data, err := readAll((*buffer)[:0], reader, limit, &memory)
	*buffer = data[:0]
	switch {
	case err != nil:
		l.readFailed(err)
		return false
	case !l.Closing():
		receiver.Receive(data)
	}
	return true
}

// readFailed handles the error that ended reading. If the link is not already being closed, it sends the client a close
// code with the reason. If the socket ended without a close frame, it sends nothing.
func (l *Link) readFailed(err error) {
	if closed, ok := errors.AsType[*websocket.CloseError](err); ok && l.input.failed == nil {
		if closed.Code != websocket.CloseAbnormalClosure {
			l.Close(errcode.CloseCode(closed.Code), "")
		}
		return
	}
	if l.input.failed != nil || l.lingering {
		return
	}
	switch {
	case errors.Is(err, websocket.ErrReadLimit), errors.Is(err, errTooLarge), errors.Is(err, errSpent):
		l.transport.cfg.Metrics.Limits[metrics.LimitFrameBytes].Inc()
		l.Close(errcode.CloseTooLarge, "the message is above the limit")
	case errors.Is(err, errNoMemory):
		l.transport.cfg.Metrics.Limits[metrics.LimitUnauthenticatedBytes].Inc()
		l.Close(errcode.CloseOverloaded, "too many clients are connecting")
	default: // gorilla/websocket found a frame that breaks the protocol
		l.Close(errcode.CloseProtocol, "the WebSocket protocol was broken")
	}
	l.linger()
}

// linger reads and discards up to lingerBytes, then waits until the client has closed the socket, for at most
// outbox.CloseGrace. After the error the reader can no longer find frames in these bytes.
func (l *Link) linger() {
	if l.QueuedBytes() == 0 { // the close frame is sent, and nothing comes after it
		if half, ok := l.socket.plain.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // the client may be gone already
		}
	}
	deadline := time.NewTimer(outbox.CloseGrace)
	defer deadline.Stop()
	n, _ := io.CopyN(io.Discard, l.input.Conn, lingerBytes) // ends at the read deadline of the close
	if n < lingerBytes {
		return
	}
	<-deadline.C
}

// allowance is the memory that one message has taken from a budget. The zero value is unlimited.
type allowance struct {
	from  *Budget
	taken int64
}

// grow takes memory for a message of this many bytes in total. It returns false if the budget has too little left.
func (a *allowance) grow(bytes int) bool {
	more := int64(bytes) - freeBytes - a.taken
	if a.from == nil || more <= 0 {
		return true
	}
	if !a.from.Take(more) {
		return false
	}
	a.taken += more
	return true
}

func (a *allowance) giveBack() {
	if a.from != nil {
		a.from.Return(a.taken)
	}
}

// readAll reads a message of at most limit bytes into buf.
func readAll(buf []byte, r io.Reader, limit int, memory *allowance) ([]byte, error) {
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case len(buf) > limit:
			return buf, errTooLarge
		case !memory.grow(len(buf)):
			return buf, errNoMemory
		case errors.Is(err, io.EOF):
			return buf, nil
		case err != nil:
			return buf, err
		}
	}
}
