// Package link is the session's interface to a transport. A Link takes encoded messages and closes with a code; a Receiver takes
// the client's messages. Each transport is a sibling package that passes the suite of linktest; all of them share the queue in
// outbox. A link never decodes a frame and never knows users or conversations.
package link

import (
	"github.com/runnelhq/runnel/pkg/errcode"

	"github.com/runnelhq/runnel/services/gateway/flight"
	"github.com/runnelhq/runnel/services/gateway/wire"
)

// Link is one transport instance of a device. It may be used by several goroutines.
//
//	live ──Close──▶ closing (finishes a begun message, sends the close code) ──▶ ended
//	  └────────────── the transport fails, or the client closes ─────────────────▲
type Link interface {
	// Queue adds an encoded message without writing it. If first is true, the caller must call Flush after its last
	// message for this link. If first is false, another caller flushes the queue, or the link is already writing.
	Queue(message []byte) (first bool)
	// QueueEvents is Queue for a message with events; the flight recorder records what happens to them. mark identifies
	// the message in the recorder. It is 0 if the link is closing and the message was dropped.
	QueueEvents(message []byte, followed []*flight.Delivery) (mark uint32, first bool)
	// Flush writes what is queued, without waiting for a client that is slow to read.
	Flush()
	// WaitForRoom waits until the queue is less than half full, so that a long answer never makes a client count as slow. It returns
	// false if the link is closing.
	WaitForRoom() bool
	// Close closes the link with a code. Later calls change nothing and return false.
	Close(code errcode.CloseCode, reason string) bool
	// Closing reports whether the link is being closed or has ended.
	Closing() bool
	// Done is closed when the link has ended.
	Done() <-chan struct{}
	// Describe returns a description of the link for operators.
	Describe() Description
	// Serve reads messages and passes them to receiver. It is called once. It may return before the link has ended; then
	// a goroutine of the transport continues to read, and the gateway waits for this goroutine when it stops. No message
	// is passed on once the link is Closing, but reading continues until the client has answered the close or the read
	// deadline has passed. The last call of receiver is Ended, once. A message above the transport's limits is not passed
	// on: the link is closed with errcode.CloseTooLarge. Until Opened returns true, the client is not authenticated, and
	// the limit is protocol.MaxConnectBytes.
	Serve(receiver Receiver)
}

// Description describes a link for operators.
type Description struct {
	// Encoding is the encoding of answers and pushes. A session may use another encoding with the same framing for
	// events.
	Encoding wire.Encoding
	// Remote is the client's address without port.
	Remote string
	// QueuedBytes is the number of bytes that wait to be written.
	QueuedBytes int
}

// Receiver is notified of what happens on a link, by one goroutine at a time.
type Receiver interface {
	// Receive handles one message, which is valid during the call only.
	Receive(message []byte)
	// AllowControl counts a control message of the transport, such as a ping, and reports whether to answer it.
	AllowControl() bool
	// Opened reports whether the client is connected. A link may then move to a goroutine that needs less memory.
	Opened() bool
	// Ended is the last call, made once. code is the close code of the link; 0 if the connection was lost.
	Ended(code errcode.CloseCode)
}
